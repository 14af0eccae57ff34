// What a tab keeps of its picture to start from: the file and the mask's strokes, each by itself, since these change often.

import { forgetNote } from "./notes.js";
import { forget, keep, kept } from "./store.js";
import { OLD, closed, sure, tab } from "./tab.js";

const keyOf = (part) => `${tab()} ${part}`;

/** Keep a part, for this tab. */
export async function keepPart(part, value) {
  await sure;
  const isKept = await keep("start", keyOf(part), { key: keyOf(part), tab: tab(), when: Date.now(), [part]: value });
  if (!isKept) await forget("start", keyOf(part)); // an older picture's
}

/** The parts that a tab has kept. */
export async function partsOf(keeper) {
  return Object.assign({}, ...(await kept("start")).filter((one) => one.tab === keeper));
}

/** Forget this tab's. */
export async function forgetParts() {
  await sure;
  await Promise.all(["file", "strokes"].map((part) => forget("start", keyOf(part))));
}

/** Forget those of tabs that were closed long ago, and what old pages kept for all tabs. */
export async function forgetOldParts() {
  for (const key of ["image", "strokes"]) forget("start", key);
  forgetNote("strength");
  const old = (await kept("start")).filter(({ when }) => when < Date.now() - OLD);
  const left = await closed([...new Set(old.map((one) => one.tab))]);
  for (const one of old.filter((one) => left.includes(one.tab))) forget("start", one.key);
}
