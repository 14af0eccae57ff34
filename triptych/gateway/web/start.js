// The picture that drawing starts from: chosen, dropped, pasted, or one that was drawn here.

import { $, say } from "./dom.js";
import { clearErrors, isTyped, remember, showError, typedSince, unfold } from "./form.js";
import { endStroke, isMasked, maskFile, newMask } from "./mask.js";
import { usual } from "./models.js";
import { showSize } from "./sizes.js";
import { forgetParts, keepPart, partsOf } from "./start_kept.js";
import { sure, tab } from "./tab.js";
import { t } from "./words.js";

const USUAL_STRENGTH = "0.8"; // diffusers' for image to image
const USUAL_MASKED_STRENGTH = "1";
const LARGE = 2048; // pixels along a side that a picture for drawing never needs more than
const MOST_PIXELS = 768; // of the canvas to paint on, along a side
let start = ""; // the picture as a data: address
let size; // its own, in pixels
let chosenStrength = null;
let wanted = null; // the file that was chosen last, which takes a while to read
let keeper; // the tab that keeps it: another one until a new tab has a copy

/** What a request says of the picture to start from: nothing without one, or where none is taken. */
export function startSettings() {
  if (!start || usual.takes_pictures === false) return {};
  const asked = { image: start, strength: Number($("strength").value) };
  return isMasked() ? { ...asked, mask_image: maskFile() } : asked;
}

/** Have drawing start from a picture's file; what was typed since it was chosen stays. */
export async function startFrom(chosen, since = performance.now()) {
  clearErrors();
  wanted = chosen;
  let picture;
  try {
    picture = await createImageBitmap(chosen);
  } catch {
    if (wanted !== chosen) return;
    return showError(t("A picture that this browser can show"), "image");
  }
  const file = await withinLimits(chosen, picture);
  const address = await dataAddress(file);
  await sure; // the name under which it is kept
  if (wanted !== chosen) return; // another one is, or none
  showStart(picture, address);
  keepPart("file", file);
  keeper = tab();
  takeShape(since);
  unfold(true);
  if (!isTyped(since)) {
    $("start").scrollIntoView({ block: "nearest" });
    $("prompt").focus({ preventScroll: true });
  }
  say(t("Drawing starts from this picture"));
}

/**
 * Have the form ask for the shape of the picture to start from, if there is one, no larger than the model's own size,
 * but where something was typed since.
 */
export function takeShape(since) {
  if (!start || $("start-field").hidden) return;
  const shrink = Math.min(1, Math.sqrt((usual.width * usual.height) / (size.width * size.height)));
  const side = (id) => Math.max(64, 8 * Math.floor((size[id] * shrink) / 8));
  const typed = typedSince(since);
  for (const id of ["width", "height"].filter((one) => !(one in typed))) $(id).value = side(id);
  showSize();
  remember();
}

/** Whether a file is of a kind that the server takes; an animation is not, and says so before its pixels. */
async function isTaken(file) {
  const head = new TextDecoder("latin1").decode(await file.slice(0, 2 ** 16).arrayBuffer());
  const isMoving = /^(RIFF.{4}WEBP.*ANIM|.PNG.*acTL)/s.test(head.split(/IDAT|VP8[ L]/)[0]);
  return !isMoving && /^(ÿØ|.PNG|RIFF.{4}WEBP)/s.test(head);
}

/** The file of a picture, or another one of it where the server takes none so large, or none of that kind. */
async function withinLimits(file, picture) {
  const { max_picture_bytes, max_picture_pixels } = usual.limits;
  const pixels = picture.width * picture.height;
  if (file.size <= max_picture_bytes && pixels <= max_picture_pixels && (await isTaken(file))) return file;
  const shrink = Math.min(1, LARGE / Math.max(picture.width, picture.height));
  const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * shrink)));
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").drawImage(picture, 0, 0, width, height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
}

/** Show the picture to start from, under its mask. */
function showStart(picture, address, { strokes, strength = null } = {}) {
  start = address;
  const { width, height } = picture;
  size = { width, height };
  const shown = Math.min(1, MOST_PIXELS / Math.max(width, height));
  const [across, down] = [width, height].map((side) => Math.max(1, Math.round(side * shown)));
  Object.assign($("picture"), { width: across, height: down });
  $("picture").getContext("2d").drawImage(picture, 0, 0, across, down);
  picture.close();
  chosenStrength = strength;
  if (strength !== null) showStrength(strength);
  $("start").hidden = false;
  $("start-none").hidden = true;
  newMask(across, down, strokes);
}

/** What the form notes of it. */
export const startNoted = () => ({ keeper, strength: chosenStrength });

/** The picture that the form has noted. */
export async function recallStart(noted) {
  ({ keeper, strength: chosenStrength } = noted);
  const { file, strokes } = await partsOf(keeper);
  const read = file && (await Promise.all([createImageBitmap(file), dataAddress(file)]).catch(() => null));
  if (start || !keeper) return; // another one is meant since, or none
  if (!read) {
    keeper = undefined; // there was no room for it, or it cannot be read any more
    remember();
    return forgetParts();
  }
  showStart(...read, { strokes, strength: chosenStrength });
  await keepPart("file", file); // a copy for a new tab; else it is younger again
  keeper = tab();
  remember();
}

/** Have drawing start from noise. */
export function leaveOutStart() {
  endStroke();
  start = "";
  wanted = null;
  keeper = undefined;
  forgetParts();
  remember();
  $("start").hidden = true;
  $("start-none").hidden = false;
}

function dropStart() {
  leaveOutStart();
  [$("image"), $("unfold")].find((one) => one.checkVisibility()).focus();
  say(t("Drawing starts from noise again"));
}

/** The strength that is meant as long as none was chosen. */
export function usualStrength(masked) {
  if (chosenStrength === null) showStrength(masked ? USUAL_MASKED_STRENGTH : USUAL_STRENGTH);
}

function showStrength(value) {
  $("strength").value = value;
  $("strength-said").textContent = Number($("strength").value).toFixed(2);
}

/** Take the strength out of a picture's settings, if there is a picture that it would be for. */
export function fillStrength({ strength }) {
  if (strength !== undefined && start) chooseStrength(strength);
}

function chooseStrength(value) {
  chosenStrength = value;
  showStrength(value);
}

export function dataAddress(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

$("strength").addEventListener("input", () => chooseStrength($("strength").value));
$("start-drop").addEventListener("click", dropStart);
$("image").addEventListener("change", () => {
  if ($("image").files[0]) startFrom($("image").files[0]);
  $("image").value = "";
});
