"use strict";

// What the server is asked, and the key that it may ask for.

const $ = (id) => document.getElementById(id);
const TRIES = 10; // while the server has too much to do

function headers() {
  const key = sessionStorage.getItem("key");
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

/** The answer to a request, with the key that the server may ask for, and patience if it is busy. */
async function ask(path, options, onBusy = () => {}) {
  for (let tries = 1; ; tries++) {
    const answer = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({ message: answer.statusText }));
    if (answer.status === 401) {
      await askForKey();
    } else if (answer.status === 429 && tries < TRIES) {
      const seconds = Number(answer.headers.get("Retry-After")) || 2;
      onBusy(seconds);
      await pause(seconds, options.signal);
    } else {
      throw Object.assign(new Error(problem.message), { field: problem.field });
    }
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

let askingForKey = null; // one dialog for all requests that wait

function askForKey() {
  askingForKey ??= new Promise((resolve, reject) => {
    $("key").returnValue = "";
    $("key").showModal();
    $("key-text").select();
    $("key").addEventListener(
      "close",
      () => {
        askingForKey = null;
        if ($("key").returnValue !== "use") return reject(new Error("This server asks for a key."));
        sessionStorage.setItem("key", $("key-text").value);
        resolve();
      },
      { once: true },
    );
  });
  return askingForKey;
}

/** The server-sent events of an answer: [name, data] each. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const [name, data] = block.split("\n");
      yield [name.slice("event: ".length), JSON.parse(data.slice("data: ".length))];
    }
  }
}
