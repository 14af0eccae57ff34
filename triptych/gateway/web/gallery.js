// The pictures: the newest first, those of one prompt that follow each other in a group; each has one card from its first step on.

import { $, doing, fromTemplate, say, showIcons } from "./dom.js";
import { start } from "./drawing.js";
import { usual } from "./models.js";
import { openSheet, showWarnings } from "./sheet.js";
import { largerSize, largestSaid, sizeOfPicture } from "./sizes.js";
import { dataAddress, startFrom } from "./start.js";
import { forget, keep, kept } from "./store.js";
import { tellTabs } from "./tab.js";
import { open, picked, recount } from "./viewer.js";
import { pictures, secondsSaid, t } from "./words.js";

const LIKENESS = 0.7; // the strength of "More like this"
const SECOND_PASS = 0.3; // the strength of "Draw it larger", little enough for it to be the same picture
const records = new WeakMap(); // of each card with a picture
let marking = 0; // the rows, before the next frame
const deleted = []; // the records of pictures that can be brought back, as long as the page is open

export const recordOf = (card) => records.get(card);

/** The cards with a picture, as they stand. */
export function cards() {
  return [...document.querySelectorAll("#gallery .card:not(.coming)")];
}

/** A card for a picture on its way, or for one that is there, at its place. */
export function place({ batch, index, asked }, cancel) {
  const card = fromTemplate("card");
  card.dataset.order = `${String(batch).padStart(16, "0")} ${String(1e6 - index).padStart(7, "0")}`;
  const { prompt } = asked;
  const { width, height } = sizeOfPicture({ width: usual.width, height: usual.height, ...asked });
  card.querySelector(".frame").style.aspectRatio = width && height ? `${width} / ${height}` : "1";
  card.dataset.prompt = prompt;
  card.querySelector("progress").setAttribute("aria-label", t("Steps of: {prompt}", { prompt }));
  doing(card, "give-up").setAttribute("aria-label", t("Cancel: {prompt}", { prompt }));
  doing(card, "give-up").addEventListener("click", cancel);
  insert(card);
  return card;
}

/** Put a card between its neighbours: into the group of one that has its prompt, else into a group of its own. */
function insert(card) {
  const { order, prompt } = card.dataset;
  const all = [...document.querySelectorAll("#gallery .card")];
  const after = all.find((other) => other.dataset.order < order);
  const before = after ? all[all.indexOf(after) - 1] : all.at(-1);
  if (after?.dataset.prompt === prompt) return after.before(card);
  if (before?.dataset.prompt === prompt) return before.after(card);
  const group = fromTemplate("batch");
  group.querySelector("h3").textContent = prompt;
  group.querySelector("ol").append(card);
  $("gallery").insertBefore(group, after?.closest(".batch") ?? null);
}

export function remove(card) {
  if (card.contains(document.activeElement)) $("draw").focus();
  const group = card.closest(".batch");
  URL.revokeObjectURL(card.querySelector(".picture img").src);
  card.remove();
  if (group && group.querySelector("li") === null) group.remove();
  showCount();
}

export const isWorking = () => document.body.classList.contains("working");

/** How many pictures there are, and what can be done with all of them. */
export function showCount() {
  const number = cards().length;
  $("empty").hidden = document.querySelector("#gallery .card") !== null;
  $("bar").hidden = !$("empty").hidden && deleted.length === 0;
  for (const button of document.querySelectorAll("[data-does=bring-back]")) button.hidden = deleted.length === 0;
  if (!isWorking()) $("all-said").textContent = pictures(number);
  $("compare").disabled = number < 2;
  $("download-all").disabled = $("clear-all").disabled = number === 0;
  recount();
  cancelAnimationFrame(marking);
  marking = requestAnimationFrame(markRows);
}

/** Mark the cards that begin a row in the midst of their group, where groups share the rows. */
function markRows() {
  const columns = getComputedStyle($("gallery")).gridTemplateColumns.split(" ").length;
  const all = [...document.querySelectorAll("#gallery .card")];
  all.forEach((card, i) => card.classList.toggle("goes-on", i % columns === 0 && card.matches(":not(:first-child)")));
}

export function showWaiting(card, text) {
  card.querySelector(".steps").textContent = text;
  card.querySelector("progress").value = 0;
}

export function showStep(card, { step, total, preview }) {
  const bar = card.querySelector("progress");
  bar.max = total;
  bar.value = step;
  const said = step < total ? t("step {step} of {total}", { step, total }) : t("finishing");
  card.querySelector(".steps").textContent = said;
  if (!preview) return;
  const image = card.querySelector(".preview");
  image.src = `data:image/png;base64,${preview}`;
  image.alt = t("A preview after {step} of {total} steps", { step, total });
  image.hidden = false;
}

/** Have a card show its picture, over the preview that it had. */
export function showPicture(card, record) {
  const { settings, seconds, blob } = record;
  const { prompt, seed } = settings;
  const { width, height } = sizeOfPicture(settings);
  records.set(card, record);
  card.classList.remove("coming");
  card.querySelector(".frame").style.aspectRatio = `${width} / ${height}`;
  card.querySelector("progress").remove();
  const url = URL.createObjectURL(blob);
  const picture = card.querySelector(".picture");
  const image = picture.querySelector("img");
  image.addEventListener("load", () => card.classList.add("there"), { once: true });
  image.src = url;
  image.alt = prompt;
  picture.hidden = false;
  picture.setAttribute("aria-label", t("View: {prompt}", { prompt }));
  picture.addEventListener("click", () => picked(card) || open(card));
  if (card.contains(document.activeElement)) picture.focus();
  card.querySelector(".told").textContent = t("seed {seed}, {time}", { seed, time: secondsSaid(seconds) });
  showWarnings(card.querySelector(".warnings"), settings.warnings ?? []);
  const actions = card.querySelector(".small");
  actions.hidden = false;
  for (const one of actions.children) one.setAttribute("aria-label", `${t(one.title)}: ${prompt}`);
  offer(doing(actions, "download"), record, url);
  doing(actions, "start").addEventListener("click", () => startFrom(blob));
  doing(actions, "more").addEventListener("click", () => moreLike(record));
  doing(actions, "sheet").addEventListener("click", () => openSheet(record));
  doing(actions, "delete").addEventListener("click", () => drop(card));
}

/** Keep a picture in this browser, or say that it is not. */
export async function keepPicture(record) {
  const isKept = await keep("pictures", record.key, record);
  if (!isKept) $("alert").textContent = t("This browser keeps no more pictures: download what you want to have.");
}

/** Have a link give the picture's file. */
export function offer(link, { settings }, url) {
  link.href = url;
  link.download = `triptych-${settings.seed}.${settings.output_format}`;
}

/** What a picture was asked for with, but its seed and what it began from. */
function askedFor({ warnings, output_format, seed, strength, mask_blur, padding_mask_crop, ...asked }) {
  return asked;
}

/** Draw four more: from this picture where the model takes one, else with other seeds. */
export async function moreLike({ settings, blob }) {
  if (!usual.takes_pictures) return start(askedFor(settings), 4);
  const num_inference_steps = Math.max(settings.num_inference_steps, Math.ceil(1 / LIKENESS)); // at least one is made
  start({ ...(await fromItself(settings, blob)), ...sizeOfPicture(settings), strength: LIKENESS, num_inference_steps }, 4);
}

/** What is asked for where a picture is drawn from this one. */
async function fromItself({ second_pass, ...settings }, blob) {
  return { ...askedFor(settings), image: await dataAddress(blob) };
}

/** Why a picture cannot be drawn larger; empty where it can. */
export function whyNotLarger(settings) {
  if (!usual.limits) return t("The server is not ready at the moment.");
  if (!largerSize(settings)) return t("The server draws no larger picture: at most {size} in total.", { size: largestSaid(usual.limits) });
  if (isFromPicture(settings) && !usual.takes_pictures) return t("Drawn from another picture, and this model takes none.");
  return "";
}

const isFromPicture = ({ strength }) => strength !== undefined;

/** Draw the same picture larger: in a second pass, or from itself where it began from a picture, which is not kept. */
export async function larger({ settings, blob }) {
  const { seed, num_inference_steps } = settings;
  const second = { ...largerSize(settings), strength: SECOND_PASS };
  second.num_inference_steps = Math.max(num_inference_steps, Math.ceil(1 / SECOND_PASS)); // at least one is made
  if (isFromPicture(settings)) start({ ...(await fromItself(settings, blob)), seed, ...second }, 1);
  else start({ ...askedFor(settings), seed, second_pass: second }, 1);
}

/** Delete a picture, with a way back; the card that is next then, if there is one. */
export function drop(card) {
  const record = recordOf(card);
  const all = cards();
  const next = all[all.indexOf(card) + 1] ?? all[all.indexOf(card) - 1];
  deleted.push(record);
  forgetPicture(card);
  (next?.querySelector(".picture") ?? doing($("bar"), "bring-back")).focus();
  say(t("The picture is deleted."));
  return next;
}

function forgetPicture(card) {
  const { key } = recordOf(card);
  remove(card);
  forget("pictures", key);
  tellTabs("deletedelsewhere", key);
}

/** Bring back the picture that was deleted last; its card, or nothing where there is none. */
export function bringBack() {
  const record = deleted.pop();
  if (!record) return null;
  keepPicture(record);
  tellTabs("drawnelsewhere", record);
  const card = show(record);
  showCount();
  card.querySelector(".picture").focus();
  say(t("The picture is back."));
  return card;
}

/** A card with its picture; who shows some counts them after the last. */
function show(record) {
  const card = place({ ...record, asked: record.settings }, () => {});
  showPicture(card, record);
  return card;
}

/** Delete all pictures, once that is sure. */
function dropAll() {
  const asked = cards();
  $("sure").returnValue = "";
  $("sure").showModal();
  const answer = () => {
    if ($("sure").returnValue !== "yes") return;
    deleted.length = 0;
    for (const card of asked) {
      forgetPicture(card);
    }
    $("prompt").focus();
    say(t("All pictures are deleted"));
  };
  $("sure").addEventListener("close", answer, { once: true });
}

/** The pictures of earlier visits. */
export async function restore() {
  const before = await kept("pictures");
  const shown = keysOfShown(); // while this was asked for
  const others = before.filter(({ key }) => !shown.has(key));
  for (const record of others.sort((a, b) => a.batch - b.batch || a.index - b.index)) show(record);
  showCount();
}

/** The keys of the pictures that are here. */
export const keysOfShown = () => new Set(cards().map((card) => recordOf(card).key));

showIcons(document);
document.addEventListener("deletedelsewhere", ({ detail: key }) => cards().filter((card) => recordOf(card).key === key).forEach(remove));
document.addEventListener("drawnelsewhere", ({ detail: record }) => {
  if (keysOfShown().has(record.key)) return;
  show(record);
  showCount();
});
new ResizeObserver(markRows).observe($("gallery"));
$("clear-all").addEventListener("click", dropAll);
