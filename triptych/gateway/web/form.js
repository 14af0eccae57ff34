// The form: what it asks for, what is wrong in it, and that it is still there after a reload.

import { $, say, type } from "./dom.js";
import { chooseLoras, chosenLoras } from "./loras.js";
import { usual } from "./models.js";
import { note, noted } from "./notes.js";
import { largestSaid, showSize } from "./sizes.js";
import { fillStrength, recallStart, startNoted, startSettings } from "./start.js";
import { labelOf, serverSaid, shownSaid, t, valueSaid } from "./words.js";

const NUMBERS = ["num_inference_steps", "guidance_scale", "width", "height"];
const PROMPTS = ["prompt", "negative_prompt", "prompt_2", "negative_prompt_2"];
const TEXTS = [...PROMPTS, "model", "scheduler", "prompt_syntax", "seed"];
// Without a field in the form.
const OTHERS = ["timestep_spacing", "eta", "clip_skip", "guidance_rescale", "guidance_start", "guidance_stop",
  "cache_interval", "second_pass", "original_size", "crops_coords_top_left", "target_size"];
/** The prompts that a picture may have been drawn without. */
export const NO_PROMPTS = { negative_prompt: "", prompt_2: "", negative_prompt_2: "" };
const HIGHEST_SEED = 2n ** 64n - 1n;
let others = {}; // those of them that a picture brought
const typedAt = new Map(); // when somebody changed a field last, by its id

/** What a request for a picture says; without a seed where a random one is meant. */
export function settings() {
  const asked = { ...others };
  for (const name of TEXTS) if ($(name).value.trim()) asked[name] = $(name).value.trim();
  asked.prompt = $("prompt").value;
  if (asked.seed === "-1") delete asked.seed;
  for (const name of NUMBERS) if ($(name).value) asked[name] = Number($(name).value);
  const loras = chosenLoras();
  if (loras.length) asked.loras = loras;
  return { ...asked, ...startSettings() };
}

export const count = () => Number($("count").value || 1);

/** Whether a list has a value to choose. */
const offers = (list, value) => [...list.options].some((option) => option.value === value);

/** Choose a value in a list, where it has it; before the server has told the list's choices, which come then, any. */
function choose(list, value) {
  const isEarly = (option) => "early" in option.dataset;
  if (offers(list, value)) list.value = value;
  else if (value && [...list.options].every(isEarly)) {
    const option = new Option(value, value);
    option.dataset.early = "";
    list.replaceChildren(option);
  }
}

/** Put a picture's settings into the form; fields that they do not name stay as they are. Its seed is good for one use. */
export function fill(values) {
  const model = $("model").value;
  for (const name of [...TEXTS, ...NUMBERS]) {
    const value = values[name];
    if (value === undefined || value === null) continue;
    if ($(name).options) choose($(name), value);
    else if ($(name).value !== value) $(name).value = value; // half a number that is being typed is ""
  }
  if (values.seed !== undefined) $("keep-seed").checked = values.keepsSeed ?? false;
  fillStrength(values);
  keepOthers(Object.fromEntries(OTHERS.filter((name) => name in values).map((name) => [name, values[name]])));
  chooseLoras(values.loras ?? []);
  showSecondPrompts();
  showSize();
  clearErrors();
  remember();
  document.dispatchEvent(new CustomEvent("filled"));
  if (model && $("model").value !== model) document.dispatchEvent(new CustomEvent("othermodel", { detail: values }));
}

/** Show the fields for a second text encoder's prompts where the model has one, or where they have words. */
export function showSecondPrompts() {
  const words = $("prompt_2").value + $("negative_prompt_2").value;
  $("second-prompts").hidden = !usual.takes_prompt_2 && !words;
}

/** Whether anything in the form was changed by hand after a time. */
export const isTyped = (since) => [...typedAt.values()].some((time) => time > since);

/** What fields say that were changed by hand after a time. */
export function typedSince(since) {
  const wasTyped = (...ids) => ids.some((id) => typedAt.get(id) > since);
  const typed = Object.fromEntries([...TEXTS, ...NUMBERS].filter((id) => wasTyped(id)).map((id) => [id, $(id).value]));
  if (wasTyped("seed", "keep-seed")) typed.keepsSeed = $("keep-seed").checked;
  if (wasTyped("strength")) typed.strength = $("strength").value;
  if (wasTyped("chosen-loras")) typed.loras = chosenLoras();
  return typed;
}

/** Fill the form and tell so, and what of the picture is not to be had here; what was typed after a time stays. */
export function use(told, warnings = [], since = Infinity) {
  const values = { ...told, ...typedSince(since) };
  fill(values);
  const isMissing = (name) => values[name] && $(name).value !== values[name];
  const missing = ["model", "scheduler"].filter(isMissing).map((name) => `${labelOf(name)} ${values[name]}`);
  const said = missing.length ? [`not taken from the picture: ${missing.join(", ")}`, ...warnings] : warnings;
  $("alert").textContent = said.map(serverSaid).join("; ");
  if (!isTyped(since)) $("prompt").focus();
  say(t("The settings are in the form"));
}

/** The seed was used once: the next one is random again, unless it is to be kept. */
export function seedIsUsed() {
  if (!$("keep-seed").checked) $("seed").value = "";
  remember();
}

function keepOthers(values) {
  others = values;
  const said = Object.entries(others).map(([name, value]) => `${labelOf(name).toLowerCase()} ${valueSaid(name, value)}`);
  $("others-said").textContent = t("Also as in the picture: {settings}.", { settings: said.join(", ") });
  $("others").hidden = said.length === 0;
}

/** What the form shows for a picture's syntax: plain words have no name there. */
export function syntaxOf({ prompt_syntax }) {
  return { prompt_syntax: prompt_syntax === "webui" ? "webui" : "" };
}

// What is wrong.

export function clearErrors() {
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  for (const error of document.querySelectorAll("#form .error")) error.textContent = "";
  $("alert").textContent = "";
}

/** Take back what is wrong of fields that say something else by now. */
function clearMended() {
  for (const field of document.querySelectorAll("[aria-invalid]")) {
    if (field.value === field.dataset.refused) continue;
    field.removeAttribute("aria-invalid");
    $(`${field.id}-error`).textContent = "";
  }
}

/** Have a field be seen. */
export function reveal(input) {
  if (input.closest("#advanced")) $("advanced").open = true;
  if (!input.closest("#prompt-field")) unfold(true);
}

export function unfold(open) {
  $("form").classList.toggle("folded", !open);
  $("unfold").setAttribute("aria-expanded", String(open));
}

/** Show what is wrong at the field that it is about, if that is to be seen, else above the pictures. */
export function showError(message, field) {
  const refused = /^(?<field>\S+): got (?<value>.*?); allowed: (?<allowed>.*)$/s.exec(message)?.groups;
  const id = (field ?? refused?.field ?? "").split(".")[0].replace("mask_image", "image");
  const allowed = refused && serverSaid(refused.allowed);
  const place = $(`${id}-error`);
  if (!place || place.closest("[hidden]")) {
    const values = refused && { field: labelOf(id), value: shownSaid(refused.value), allowed };
    $("alert").textContent = refused ? t("{field}: got {value}; allowed: {allowed}", values) : serverSaid(message);
    return;
  }
  const said = refused ? t("Allowed: {allowed}", { allowed }) : message;
  place.textContent = said;
  $(id).setAttribute("aria-invalid", "true");
  $(id).dataset.refused = $(id).value;
  reveal($(id));
  $(id).focus();
  say(`${labelOf(id)}: ${said}`);
}

/** Whether the form can be drawn from; where not, it says so at the field. */
export function isFilledIn() {
  clearErrors();
  for (const [id, wrong] of checks()) {
    const text = $(id).validity.badInput ? t("A number") : wrong($(id).value.trim());
    if (text) return showError(text, id), false;
  }
  return true;
}

function* checks() {
  const { limits } = usual;
  yield ["prompt", (value) => !value && t("Say what to draw")];
  for (const id of PROMPTS) yield [id, (value) => tooLong(value, limits)];
  for (const id of ["num_inference_steps", "count"]) yield [id, (value) => value % 1 !== 0 && t("A whole number")];
  yield ["num_inference_steps", (value) => outside(value, 1, limits?.max_num_inference_steps)];
  yield ["guidance_scale", (value) => outside(value, 0, limits?.max_guidance_scale)];
  yield ["seed", wrongSeed];
  yield ["width", () => tooManyPixels(limits)];
  for (const id of ["width", "height"]) yield [id, (value) => wrongSide(value, limits, limits?.[`max_${id}`])];
  yield ["count", (value) => outside(value, 1, 8)];
}

function tooLong(text, limits) {
  if (!limits || new TextEncoder().encode(text).length <= limits.max_prompt_bytes) return "";
  const letters = (1000 * Math.floor(limits.max_prompt_bytes / 1000)).toLocaleString();
  return t("This prompt is too long (about {letters} letters at most)", { letters });
}

function outside(value, low, high = Infinity) {
  if (value === "" || (Number(value) >= low && Number(value) <= high)) return "";
  return t("From {low} to {high}", { low, high });
}

function wrongSeed(value) {
  if (!/^(-1|\d*)$/.test(value)) return t("Leave empty for random, or type a whole number");
  if (value !== "-1" && BigInt(value) > HIGHEST_SEED) return t("At most {high}", { high: HIGHEST_SEED });
  return "";
}

function wrongSide(value, limits, most) {
  const side = Number(value);
  if (value === "" || !limits) return "";
  if (side < limits.min_side) return t("At least {low} pixels", { low: limits.min_side });
  if (side % 8) {
    const below = 8 * Math.floor(side / 8);
    return t("{below} or {above}, the nearest sizes", { below, above: below + 8 });
  }
  return side > most ? t("At most {high} pixels", { high: most }) : "";
}

function tooManyPixels(limits) {
  const [width, height] = [Number($("width").value), Number($("height").value)];
  if (!limits || width * height <= limits.max_pixels) return "";
  return t("{width} x {height} is too large: at most {size} in total", { width, height, size: largestSaid(limits) });
}

// Staying after a reload.

const before = noted("form", noted("form", {}), { inTab: true }); // as this tab left it, or the last one did

/** Note the form as it is now. */
export function remember() {
  clearMended();
  const values = Object.fromEntries([...TEXTS, ...NUMBERS, "count"].map((name) => [name, $(name).value]));
  const more = { others, loras: chosenLoras(), advanced: $("advanced").open, keepsSeed: $("keep-seed").checked };
  for (const inTab of [true, false]) note("form", { ...values, ...more, start: startNoted() }, { inTab });
}

/** Put the form of before back, with its picture to start from. */
export async function recall() {
  const { others: own, advanced, count, start = {}, ...values } = before;
  $("advanced").open = advanced ?? false;
  if (values.prompt === undefined) return;
  const started = recallStart(start);
  $("count").value = count;
  fill({ ...values, ...own });
  await started;
}

$("form").addEventListener("input", ({ target }) => {
  typedAt.set(target.closest("[id]").id, performance.now());
  showSize();
  remember();
});
$("form").addEventListener("change", remember);
$("advanced").addEventListener("toggle", remember);
$("dice").addEventListener("click", () => {
  type($("seed"), crypto.getRandomValues(new Uint32Array(1))[0]);
  say(t("Seed {seed}", { seed: $("seed").value }));
});
$("others-drop").addEventListener("click", () => {
  keepOthers({});
  remember();
  $("prompt").focus();
});
$("unfold").addEventListener("click", () => unfold($("form").classList.contains("folded")));
