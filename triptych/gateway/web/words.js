// What the page says, in the reader's language: by the browser's languages, or as chosen.

import { LABELS } from "./labels.js";
import { noted } from "./notes.js";
import { SERVER_ZH } from "./words_of_server.js";
import { ZH } from "./words_zh.js";

const TABLES = { en: {}, zh: ZH };
const OF_SERVER = { en: {}, zh: SERVER_ZH };
const ATTRIBUTES = ["aria-label", "placeholder", "title"];
const wanted = [noted("language", ""), ...navigator.languages].map((one) => one.slice(0, 2));
const language = wanted.find((one) => one in TABLES) ?? "en";

const filled = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

/** A text in the page's language, with the values of the names in braces. */
export function t(text, values = {}) {
  return filled(TABLES[language][text] ?? text, values);
}

/** A setting by the form's words for it. */
export const labelOf = (name) => (Object.hasOwn(LABELS, name) ? t(LABELS[name]) : name);

/** A setting's value for people. */
export function valueSaid(name, value) {
  return name === "second_pass" && value ? `${value.width} × ${value.height}` : String(value);
}

/** What the server shows of a value, in the page's words: "a list", "'xxx'... (300 characters)". */
export function shownSaid(value) {
  const length = (_, number) => t("... ({number} characters)", { number });
  return OF_SERVER[language][value] ?? value.replace(/(?<=['"])\.\.\. \((\d+) characters\)/g, length);
}

/** A sentence of the server in the page's words; as it came where the table does not have it. */
export function serverSaid(sentence) {
  for (const english of Object.keys(SERVER_ZH)) {
    const pattern = english.replace(/[.?+*()[\]^$|]/g, "\\$&").replace(/\{(\w+)\}/g, "(?<$1>.+)");
    const match = new RegExp(`^${pattern}$`, "s").exec(sentence);
    if (!match) continue;
    const { field, allowed, ...values } = match.groups ?? {};
    const text = (OF_SERVER[language][english] ?? english).replace(/\w+_\w+/g, labelOf);
    const shown = Object.entries(values).map(([name, value]) => [name, shownSaid(value)]);
    const known = { field: labelOf(field), allowed: allowed && serverSaid(allowed) };
    return filled(text, { ...Object.fromEntries(shown), ...known });
  }
  return sentence;
}

export function pictures(number) {
  return number === 1 ? t("1 picture") : t("{number} pictures", { number });
}

/** Seconds for people: "4.2 s", "1 min 20 s". */
export function secondsSaid(seconds) {
  if (seconds < 10 && seconds % 1) return t("{seconds} s", { seconds: seconds.toFixed(1) });
  const whole = Math.round(seconds);
  if (whole < 60) return t("{seconds} s", { seconds: whole });
  return t("{minutes} min {seconds} s", { minutes: Math.floor(whole / 60), seconds: whole % 60 });
}

/** A time for people, as their own country writes it where they read the page in their own language. */
export function timeSaid(milliseconds) {
  const own = navigator.languages.find((one) => one.slice(0, 2) === language) ?? language;
  return new Date(milliseconds).toLocaleString(own);
}

/** Put the texts of the HTML into the page's language, those of templates too, but what says to be in one. */
function translate(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const text = node.data.replace(/\s+/g, " ").trim();
    if (node.parentElement?.closest("main [lang]")) continue;
    if (text in TABLES[language]) node.data = node.data.replace(/\S.*\S|\S/s, () => t(text));
  }
  for (const name of ATTRIBUTES) {
    for (const element of root.querySelectorAll(`[${name}]`)) element.setAttribute(name, t(element.getAttribute(name)));
  }
  for (const template of root.querySelectorAll("template")) translate(template.content);
}

document.documentElement.lang = language;
translate(document);
