// The shapes to choose from: as many pixels as the model's own size has, within the server's limits.

import { $, type } from "./dom.js";
import { usual } from "./models.js";

const RATIOS = { square: 1, portrait: 2 / 3, landscape: 3 / 2 }; // width to height

/** { width, height } of a picture with these settings, the second pass's where it had one. */
export function sizeOfPicture({ second_pass, ...first }) {
  const { width, height } = second_pass ?? first;
  return { width, height };
}

/** The size of a picture that is drawn larger: twice as wide and high, or as large as the server draws; or none. */
export function largerSize(settings) {
  const { width, height } = sizeOfPicture(settings);
  const { max_pixels, max_width, max_height } = usual.limits;
  const times = Math.min(2, Math.sqrt(max_pixels / (width * height)), max_width / width, max_height / height);
  const size = { width: 8 * Math.floor((times * width) / 8), height: 8 * Math.floor((times * height) / 8) };
  return size.width > width && size.height > height ? size : null;
}

/** The largest size of a picture, for people, as the server says it. */
export function largestSaid({ max_pixels, max_width, max_height }) {
  const side = 8 * Math.floor(Math.sqrt(max_pixels) / 8);
  return max_width * max_height <= max_pixels ? `${max_width} x ${max_height}` : `${side} x ${side}`;
}

/** [width, height] of a shape, in steps that UNets of that size can halve well. */
function sizeOf(shape) {
  const { width, height, limits } = usual;
  if (shape === "square" && width === height) return [width, height];
  const step = [64, 32, 8].find((one) => 8 * one <= Math.min(width, height)) ?? 8;
  const side = Math.sqrt(width * height);
  const exact = [side * Math.sqrt(RATIOS[shape]), side / Math.sqrt(RATIOS[shape])];
  const rounded = (round) => exact.map((length) => Math.max(limits.min_side, step * round(length / step)));
  const [across, down] = rounded(Math.round);
  const fits = across * down <= limits.max_pixels && across <= limits.max_width && down <= limits.max_height;
  return fits ? [across, down] : rounded(Math.floor);
}

/** Have the shapes say what width and height are. */
export function showSize() {
  const [width, height] = [$("width").value, $("height").value];
  $("size-said").textContent = width && height ? `${width} × ${height}` : "";
  if (!usual.width) return;
  for (const choice of document.getElementsByName("shape")) {
    const [across, down] = sizeOf(choice.value);
    choice.checked = across === Number(width) && down === Number(height);
  }
}

for (const choice of document.getElementsByName("shape")) {
  choice.addEventListener("change", () => {
    if (!usual.width) return;
    const [width, height] = sizeOf(choice.value);
    type($("width"), width);
    type($("height"), height);
  });
}
