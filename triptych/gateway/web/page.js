// The page: what people do with it as a whole, and its beginning.

import { ask } from "./asking.js";
import { $, say } from "./dom.js";
import { cancelAll, draw, pickUp } from "./drawing.js";
import { NO_PROMPTS, recall, showError, syntaxOf, use } from "./form.js";
import { restore } from "./gallery.js";
import { readLink } from "./links.js";
import { showServer } from "./models.js";
import { startFrom } from "./start.js";
import { forgetOldParts } from "./start_kept.js";
import { serverSaid, t } from "./words.js";
import { stopComparing } from "./viewer.js";
import "./choices.js";
import "./mask.js";
import "./zip.js";

let wanted = null; // the file whose settings were asked for last

/** Put the settings in a picture's file into the form, but where something was typed since. */
async function readFile(file, since = performance.now()) {
  wanted = file;
  $("alert").textContent = "";
  try {
    const type = { "Content-Type": file.type || "application/octet-stream" };
    const isReadable = await file.slice(0, 1).text().catch(() => ""); // unlike a folder, or a file that is gone
    if (!isReadable) throw new Error(t("A picture that this browser can show"));
    const answer = await ask("api/settings", { method: "POST", body: file, headers: type });
    const told = await answer.json();
    if (wanted !== file) return;
    use({ ...NO_PROMPTS, ...told, ...syntaxOf(told) }, told.warnings, since);
  } catch (error) {
    if (wanted !== file) return;
    showError(`${file.name}: ${serverSaid(error.message.replace(/^image: /, ""))}`);
  }
}

/** Use the first of some files, and say so where there are more. */
async function useFirst(files, use, since) {
  for (const over of ["sheet", "viewer", "prompts"]) $(over).close();
  await use(files[0], since);
  if (files.length === 1) return;
  const values = { number: files.length, name: files[0].name };
  const said = t("Of {number} files only the first was read: {name}", values);
  $("alert").textContent = [$("alert").textContent, said].filter(Boolean).join("; ");
}

let asked = []; // the files whose purpose is asked for, and since when

/** A picture came without saying what for: ask, where the model takes pictures. */
async function dropped(files) {
  const since = performance.now();
  await served;
  if ($("start-field").hidden) return useFirst(files, readFile, since);
  asked = [files, since];
  $("dropped-name").textContent = files[0].name;
  $("dropped").returnValue = "";
  if (!$("dropped").open) $("dropped").showModal();
}

$("dropped").addEventListener("close", () => {
  const [files, since] = asked;
  if ($("dropped").returnValue === "settings") useFirst(files, readFile, since);
  if ($("dropped").returnValue === "start") useFirst(files, startFrom, since);
});

/** Draw what the form says, once it says again what it did before a reload. */
async function drawForm() {
  await recalled;
  draw();
}

const isAsking = () => document.querySelector("dialog[open]") !== null;

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  drawForm();
});
$("file").addEventListener("change", () => {
  if ($("file").files[0]) readFile($("file").files[0]);
  $("file").value = "";
});
document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.repeat || isAsking()) return; // composed: of a letter by several keys, as in Chinese
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault(); // a button with the focus would be pressed too
    drawForm();
  }
  if (event.key !== "Escape") return;
  if (document.body.classList.contains("comparing")) stopComparing();
  else cancelAll();
});
const hasFile = ({ dataTransfer }) => dataTransfer.types.includes("Files");
const isForField = (event) => !hasFile(event) && event.target.closest("input, textarea") !== null;
document.addEventListener("dragover", (event) => {
  if (isForField(event)) return;
  event.preventDefault();
  if (hasFile(event)) document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  if (isForField(event)) return;
  event.preventDefault();
  document.body.classList.remove("dropping");
  const files = [...event.dataTransfer.files];
  if (files.length) dropped(files);
});
document.addEventListener("paste", async (event) => {
  const { types } = event.clipboardData;
  const files = [...event.clipboardData.files];
  const isPicture = files[0]?.type.startsWith("image/") && !types.includes("text/plain");
  if (!isPicture || isAsking()) return;
  event.preventDefault();
  const since = performance.now();
  await served;
  if (!$("start-field").hidden) useFirst(files, startFrom, since);
});

addEventListener("hashchange", readLink);
document.addEventListener("close", () => {
  const field = document.activeElement; // which Chrome takes no keys at when a dialog gave the focus back
  field?.blur();
  field?.focus();
}, { capture: true });

const recalled = recall();
const served = showServer();
await Promise.all([recalled, restore(), served]);
readLink();
document.addEventListener("filled", () => (wanted = null)); // a file that is still read is not meant any more
await pickUp();
document.body.classList.add("ready");
await forgetOldParts();
