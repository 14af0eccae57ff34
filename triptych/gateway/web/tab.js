// Which tab this is. Its name stays through reloads, and a browser that duplicates a tab duplicates the name too:
// so a page that finds a name asks the others, and takes another where an open tab has this one.

import { note, noted } from "./notes.js";

export const OLD = 24 * 60 * 60 * 1000; // milliseconds after which what a closed tab had is forgotten
const PATIENCE = 300; // milliseconds in which an open tab has answered
const fresh = () => `${Date.now()}-${Math.random()}`;
const before = noted("tab", null, { inTab: true });
let name = before ?? fresh();
let isSure = false;

/** This tab's name; it may change until `sure`. */
export const tab = () => name;

const taken = new Set(); // the names that open tabs have said are theirs
let others; // the way to ask them
const answered = () => new Promise((resolve) => setTimeout(resolve, PATIENCE));

/** The names among some that no open tab has. */
export async function closed(names) {
  taken.clear();
  for (const asks of names) others?.postMessage({ asks });
  if (names.length) await answered();
  return names.filter((one) => !taken.has(one));
}

/** Have an event in the other open tabs. */
export function tellTabs(event, detail) {
  others?.postMessage({ event, detail });
}

/** Resolves when no other open tab has this one's name. */
export const sure = new Promise((resolve) => {
  const settle = () => {
    note("tab", name, { inTab: true });
    isSure = true;
    resolve();
  };
  try {
    others = new BroadcastChannel("triptych tabs");
  } catch {
    return settle(); // a browser that keeps nothing: there is nothing to share
  }
  others.onmessage = ({ data }) => {
    if (data.event) return document.dispatchEvent(new CustomEvent(data.event, { detail: data.detail }));
    if (data.asks === name) others.postMessage({ taken: name });
    taken.add(data.taken);
    if (isSure || data.taken !== name) return;
    name = fresh();
    settle();
  };
  if (before === null) return settle();
  others.postMessage({ asks: name });
  answered().then(() => isSure || settle());
});
