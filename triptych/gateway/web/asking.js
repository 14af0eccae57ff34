// What the server is asked: the key that it may ask for, patience where it is busy or away.

import { $ } from "./dom.js";
import { note, noted } from "./notes.js";
import { t } from "./words.js";

const TRIES = 10; // while the server has too much to do
const SILENT = 20; // seconds without a word on a stream, which has one every 5
export const PAUSE = 2; // seconds between two looks whether the server is back
const CAN_BE_SENT = /^[\x20-\xff]*$/; // what fetch takes in a header, and so all that a key can be
let key = noted("key", "", { inTab: true });

export class Lost extends Error {} // the gateway, or the server behind it, is not there

/** Make a request with the key, and without any patience. */
export function send(path, options = {}) {
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }), ...options.headers };
  return fetch(path, { ...options, headers });
}

/**
 * The answer to a request, with the key that the server may ask for, and patience if it is busy: for as long as `onBusy`
 * returns true, else for TRIES. Throws Lost where there is no server, else an Error with the `field` at fault.
 */
export async function ask(path, options = {}, onBusy = () => {}) {
  let askedForKey = false;
  for (let tries = 1; ; tries++) {
    const answer = await send(path, options).catch((error) => {
      throw options.signal?.aborted ? error : new Lost(t("Connection lost. Is `make web` still running?"));
    });
    if (answer.ok) {
      $("locked").hidden = true;
      if (askedForKey) document.dispatchEvent(new Event("keyfits"));
      return answer;
    }
    const { status } = answer;
    const problem = await answer.json().catch(() => null);
    if (status === 401) {
      await askForKey();
      askedForKey = true;
    } else if (status === 429) {
      const seconds = Number(answer.headers.get("Retry-After")) || 2;
      const goesOn = onBusy(seconds);
      if (tries >= TRIES && !goesOn) throw failure({ status });
      await pause(seconds, options.signal);
    } else {
      // A proxy whose gateway is away says so in words of its own.
      const isAway = problem === null && [502, 504].includes(status);
      throw failure({ message: `HTTP ${status}`, ...problem, status: isAway ? 503 : status });
    }
  }
}

/** An Error for what the gateway says. */
export function failure({ message, field, status }) {
  if (status === 503) return new Lost(t("The server is not ready at the moment."));
  if (status === 429) return new Error(t("The server has too much to do. Try again later."));
  if (status === 504) return new Error(t("The picture took too long and was given up."));
  if (status === 500) {
    return new Error(t("The server failed: {message}", { message: message.replace(/^the server failed: /, "") }));
  }
  return Object.assign(new Error(message), { field });
}

export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

let coming = null; // one wait for all

/** Say that the server is away, and return when it is back; throws if the signal is aborted. */
export function untilBack(lost, signal) {
  $("lost").textContent = `${lost.message} ${t("The page goes on by itself when it is back.")}`;
  coming ??= whenBack();
  return Promise.race([coming, pause(2 ** 20, signal)]);
}

async function whenBack() {
  do await pause(PAUSE);
  while (!(await fetch("healthz").catch(() => null))?.ok);
  coming = null;
  $("lost").textContent = "";
  document.dispatchEvent(new Event("serverback"));
}

function setKey(text) {
  key = text;
  note("key", key, { inTab: true });
}

let askingForKey = null; // one dialog for all requests that wait

function askForKey() {
  askingForKey ??= untilKey().finally(() => (askingForKey = null));
  return askingForKey;
}

async function untilKey() {
  let isWrong = key !== "";
  setKey("");
  for (;;) {
    $("key-wrong").textContent = isWrong ? t("This key is wrong.") : "";
    $("key").returnValue = "";
    $("key").showModal();
    $("key-text").select();
    await new Promise((resolve) => $("key").addEventListener("close", resolve, { once: true }));
    $("locked").hidden = $("key").returnValue === "use";
    if (!$("locked").hidden) throw new DOMException(t("This server draws only with its key."), "AbortError");
    const text = $("key-text").value.trim();
    if (CAN_BE_SENT.test(text)) return setKey(text);
    isWrong = true;
  }
}

/** The server-sent events of an answer: [name, data] each. Throws Lost if the connection breaks, or has nothing for SILENT. */
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await spoken(reader.read());
      if (done) return;
      text += value;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks.filter((one) => !one.startsWith(":"))) {
        const [name, data] = block.split("\n");
        yield [name.slice("event: ".length), JSON.parse(data.slice("data: ".length))];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function spoken(read) {
  return new Promise((resolve, reject) => {
    const lose = () => reject(new Lost(t("Connection lost. Is `make web` still running?")));
    const timer = setTimeout(lose, 1000 * SILENT);
    read.then(resolve, lose).finally(() => clearTimeout(timer));
  });
}
