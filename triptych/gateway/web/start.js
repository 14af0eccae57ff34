"use strict";

// The picture that drawing starts from: chosen, dropped, pasted, or one that was drawn here.

const USUAL_STRENGTH = "0.8"; // diffusers' for image to image
const USUAL_MASKED_STRENGTH = "1";
const MOST_PIXELS = 768; // of the canvas to paint on, along a side
let start = ""; // the picture as a data: address
let strengthIsChosen = false;

/** What a request says of the picture to start from: nothing without one, or where none is taken. */
function startSettings() {
  if (!start || $("start-field").hidden) return {};
  const asked = { image: start, strength: Number($("strength").value) };
  return isMasked() ? { ...asked, mask_image: maskFile() } : asked;
}

/** Have drawing start from a picture's file. */
async function startFrom(file) {
  clearErrors();
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    return showError("image: A picture that this browser can show", "image");
  }
  start = await dataAddress(file);
  const { width, height } = picture;
  const shown = Math.min(1, MOST_PIXELS / Math.max(width, height));
  const [across, down] = [width, height].map((side) => Math.max(1, Math.round(side * shown)));
  Object.assign($("picture"), { width: across, height: down });
  $("picture").getContext("2d").drawImage(picture, 0, 0, across, down);
  picture.close();
  const area = usualArea / (width * height);
  for (const [id, side] of Object.entries({ width, height })) {
    $(id).value = Math.max(64, 8 * Math.floor((side * Math.min(1, Math.sqrt(area))) / 8));
  }
  strengthIsChosen = false;
  $("start").hidden = false;
  $("start-none").hidden = true;
  newMask(across, down);
  $("start").scrollIntoView({ block: "nearest" });
  $("prompt").focus({ preventScroll: true });
  say("Drawing starts from this picture");
}

function withoutStart() {
  start = "";
  $("start").hidden = true;
  $("start-none").hidden = false;
  $("image").focus();
  say("Drawing starts from noise again");
}

/** The strength that is meant as long as none was chosen. */
function usualStrength(masked) {
  if (!strengthIsChosen) showStrength(masked ? USUAL_MASKED_STRENGTH : USUAL_STRENGTH);
}

function showStrength(value) {
  $("strength").value = value;
  $("strength-said").textContent = Number($("strength").value).toFixed(2);
}

/** Take the strength out of a picture's settings, if there is a picture that it would be for. */
function fillStrength({ strength }) {
  if (strength === undefined || !start) return;
  strengthIsChosen = true;
  showStrength(strength);
}

function dataAddress(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

/** A picture came without saying what for: ask, where the model takes pictures. */
function dropped(file) {
  if ($("start-field").hidden) return readFile(file);
  $("dropped-name").textContent = file.name;
  $("dropped").returnValue = "";
  $("dropped").showModal();
  const answer = () => {
    document.activeElement?.blur(); // Chrome takes no keys at a field that a dialog gave the focus back
    if ($("dropped").returnValue === "settings") readFile(file);
    if ($("dropped").returnValue === "start") startFrom(file);
  };
  $("dropped").addEventListener("close", answer, { once: true });
}

$("strength").addEventListener("input", () => {
  strengthIsChosen = true;
  showStrength($("strength").value);
});
$("start-drop").addEventListener("click", withoutStart);
$("image").addEventListener("change", () => {
  if ($("image").files[0]) startFrom($("image").files[0]);
  $("image").value = "";
});
document.addEventListener("paste", (event) => {
  const { files, types } = event.clipboardData;
  const isPicture = files[0]?.type.startsWith("image/") && !types.includes("text/plain");
  if (!isPicture || $("start-field").hidden || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  startFrom(files[0]);
});
