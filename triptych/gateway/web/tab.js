// Which tab this is. Its name stays through reloads, and a browser that duplicates a tab duplicates the name too:
// so a new page asks the others, and takes another name where an open tab has this one.

import { note, noted } from "./notes.js";

const PATIENCE = 300; // milliseconds in which an open tab has answered
const fresh = () => `${Date.now()}-${Math.random()}`;
let name = noted("tab", fresh(), { inTab: true });
let isSure = false;

/** This tab's name; it may change until `sure`. */
export const tab = () => name;

/** Resolves when no other open tab has this one's name. */
export const sure = new Promise((resolve) => {
  const settle = () => {
    note("tab", name, { inTab: true });
    isSure = true;
    resolve();
  };
  let others;
  try {
    others = new BroadcastChannel("triptych tabs");
  } catch {
    return settle(); // a browser that keeps nothing: there is nothing to share
  }
  others.onmessage = ({ data }) => {
    if (isSure && data.asks === name) others.postMessage({ taken: name });
    if (isSure || data.taken !== name) return;
    name = fresh();
    settle();
  };
  others.postMessage({ asks: name });
  setTimeout(() => isSure || settle(), PATIENCE);
});
