// The LoRAs of a picture: a list to choose from, and of each that is chosen how much.

import { ask } from "./asking.js";
import { $, fromTemplate } from "./dom.js";
import { t } from "./words.js";

/** Fill the list with the LoRAs of a model, while it is the chosen one; without any there is nothing to choose. */
export async function showLoras(model) {
  const names = await (await ask(`api/loras?model=${encodeURIComponent(model)}`)).json();
  if ($("model").value !== model) return;
  $("loras").replaceChildren(...names.map((name) => new Option(name, name)));
  $("loras-field").hidden = names.length === 0 && chosenLoras().length === 0;
}

/** What a request says of them. */
export function chosenLoras() {
  const rows = [...$("chosen-loras").children];
  return rows.map((row) => ({ name: row.dataset.name, scale: Number(row.querySelector("input").value || 1) }));
}

/** Have these chosen and no others. */
export function chooseLoras(loras) {
  $("chosen-loras").replaceChildren();
  const named = [loras].flat().filter((one) => typeof one?.name === "string"); // a link may say anything
  for (const { name, scale = 1 } of named) chooseLora(name, scale);
}

function chooseLora(name, scale) {
  if (!name || chosenLoras().some((one) => one.name === name)) return;
  const row = fromTemplate("chosen-lora");
  row.dataset.name = name;
  row.querySelector("span").textContent = name;
  const input = row.querySelector("input");
  input.value = scale;
  input.setAttribute("aria-label", t("Scale of {name}", { name }));
  input.addEventListener("change", () => {
    const wanted = input.value === "" ? 1 : Number(input.value);
    input.value = Math.min(4, Math.max(-4, wanted));
  });
  const button = row.querySelector("button");
  button.setAttribute("aria-label", t("Leave out {name}", { name }));
  button.addEventListener("click", () => {
    row.remove();
    tellChanged();
    $("loras").focus();
  });
  $("chosen-loras").append(row);
  $("loras-field").hidden = false;
}

/** Tell the form what typing in a field tells it. */
function tellChanged() {
  $("chosen-loras").dispatchEvent(new Event("input", { bubbles: true }));
}

/** Them and their scales, for people. */
export function lorasSaid(loras) {
  return (loras ?? []).map(({ name, scale }) => `${name} ${scale}`).join(", ");
}

$("add-lora").addEventListener("click", () => {
  chooseLora($("loras").value, 1);
  tellChanged();
});
