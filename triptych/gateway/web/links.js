// Copying: a picture, and a link that opens the page with a picture's settings in the form.

import { NO_PROMPTS, fill, syntaxOf, use } from "./form.js";
import { t } from "./words.js";

const NOT_IN_A_LINK = ["warnings", "output_format", "strength", "mask_blur", "padding_mask_crop"];
const TEXTS = ["prompt", ...Object.keys(NO_PROMPTS), "seed", "model", "scheduler"]; // whatever they look like

/** The address of the page with these settings. */
export function linkTo(settings) {
  const address = new URL(location.href);
  const told = Object.entries(settings).filter(([name]) => !NOT_IN_A_LINK.includes(name));
  const texts = told.map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]);
  address.hash = new URLSearchParams(texts.filter(([, text]) => text !== ""));
  return address.href;
}

/** Put the settings of the page's address into the form, and take them out of the address. */
export function readLink() {
  const told = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (told.prompt === undefined) return;
  history.replaceState(null, "", location.pathname + location.search);
  fill({ seed: "", ...syntaxOf({}), ...NO_PROMPTS });
  use(Object.fromEntries(Object.entries(told).map(([name, text]) => [name, valueOf(name, text)])));
}

function valueOf(name, text) {
  if (TEXTS.includes(name)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Copy the link, and say so in an element. */
export async function copyLink(settings, said) {
  const link = linkTo(settings);
  try {
    await navigator.clipboard.writeText(link);
    said.textContent = t("The link is copied.");
  } catch {
    said.textContent = link; // a page that is not from here or over TLS may not copy
  }
}

/** Copy a picture, as PNG, which is what clipboards take, and say so in an element. */
export async function copyPicture({ blob }, said) {
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": await asPng(blob) })]);
    said.textContent = t("The picture is copied.");
  } catch {
    said.textContent = t("This browser does not let the page copy pictures: download it.");
  }
}

async function asPng(blob) {
  if (blob.type === "image/png") return blob;
  const picture = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext("2d").drawImage(picture, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}
