// Prompts that were drawn before, and styles: words to put around a prompt.

import { $, closable, fromTemplate, say, type } from "./dom.js";
import { note, noted } from "./notes.js";
import { t } from "./words.js";

const MOST_RECENT = 50;
const list = (name) => noted(name, []);

/** Put a prompt at the head of those drawn before. */
export function rememberPrompt(prompt) {
  note("recent", [prompt, ...list("recent").filter((one) => one !== prompt)].slice(0, MOST_RECENT));
}

/** Put a style's words around what is in the form. */
function wear(style) {
  const own = $("prompt").value.trim();
  const put = (words) => (words.includes("{prompt}") ? words.replaceAll("{prompt}", () => own) : [own, words].filter(Boolean).join(", "));
  if (style.prompt) type($("prompt"), put(style.prompt));
  const negative = [$("negative_prompt").value.trim(), style.negative_prompt];
  type($("negative_prompt"), negative.filter(Boolean).join(", "));
}

/** What a style lacks; empty where it can be saved. */
function missing({ name, prompt, negative_prompt }) {
  if (!name) return t("Give the style a name");
  if (prompt || negative_prompt) return "";
  return $("style-whole").checked ? t("The form has no prompt and no negative prompt") : t("The form has no negative prompt");
}

function saveStyle(event) {
  event.preventDefault();
  const name = $("style-name").value.trim();
  const prompt = $("style-whole").checked ? $("prompt").value.trim() : "";
  const style = { name, prompt, negative_prompt: $("negative_prompt").value.trim() };
  $("style-error").textContent = missing(style);
  if (missing(style)) return $("style-name").focus();
  const isKept = note("styles", [...list("styles").filter((one) => one.name !== name), style]);
  if (!isKept) return ($("style-error").textContent = t("This browser does not keep the style."));
  $("style-name").value = "";
  show();
  say(t("The style is saved"));
}

function row(text, hint, take, leaveOut) {
  const item = fromTemplate("listed");
  const [choice, cross] = item.children;
  choice.textContent = text;
  if (hint) choice.append(Object.assign(document.createElement("small"), { textContent: hint }));
  choice.addEventListener("click", () => {
    take();
    $("prompts").close();
    $("prompt").focus();
  });
  cross.setAttribute("aria-label", t("Leave out {name}", { name: text }));
  cross.title = t("Leave out {name}", { name: text });
  cross.addEventListener("click", () => {
    leaveOut();
    show();
    $("style-name").focus();
  });
  return item;
}

function show() {
  const styles = list("styles");
  const recent = list("recent");
  $("styles").replaceChildren(
    ...styles.map((style) => {
      const words = [style.prompt, style.negative_prompt && `${t("not")} ${style.negative_prompt}`].filter(Boolean).join("; ");
      return row(style.name, words, () => wear(style), () => note("styles", list("styles").filter(({ name }) => name !== style.name)));
    }),
  );
  $("recent").replaceChildren(
    ...recent.map((prompt) =>
      row(prompt, "", () => type($("prompt"), prompt), () => note("recent", list("recent").filter((one) => one !== prompt))),
    ),
  );
}

closable($("prompts"));
$("new-style").addEventListener("submit", saveStyle);
$("prompts-open").addEventListener("click", () => {
  $("style-error").textContent = "";
  show();
  $("prompts").showModal();
});
