// What the gateway tells of this tab's pictures, all of them in one stream: a browser opens six connections to an address.

import { Lost, ask, events } from "./asking.js";
import { tab } from "./tab.js";
import { t } from "./words.js";

export class Unknown extends Lost {} // the gateway does not know a picture that it was asked for

const heard = new Map(); // by a picture's id: what is done with what is told of it
let isReading = false;
let reading = new AbortController();
const begun = () => [...heard].filter(([, { isBegun }]) => isBegun);

/** What names one of this tab's pictures to the gateway. */
export const addressOf = (id) => `api/picture?${new URLSearchParams({ tab: tab(), id })}`;

/**
 * Have `begin` ask for a picture, hand `tell` what is told of it, as name and data, and return the last of it, as
 * [name, data]. Throws what `begin` throws, Lost where the stream breaks, and what the signal is aborted with.
 */
export async function hear(id, begin, tell, signal) {
  const one = { tell, isBegun: false };
  const end = new Promise((resolve, reject) => Object.assign(one, { resolve, reject }));
  end.catch(() => {}); // it is awaited below, unless `begin` throws
  signal.addEventListener("abort", () => one.reject(signal.reason));
  heard.set(id, one); // before it is begun: an open stream may tell of it before its answer is there
  try {
    await begin();
    one.isBegun = true;
    if (!isReading) readAll();
    return await end;
  } finally {
    heard.delete(id);
    if (heard.size === 0) reading.abort(); // the connection is another tab's
  }
}

/** Read one stream after the other, each to its end, which comes when the gateway has no picture of this tab left. */
async function readAll() {
  isReading = true;
  while (begun().length) {
    let lost = begun(); // those of them that the gateway does not know, once it has told all; later ones are told of in the next
    let error = new Unknown(t("Connection lost. Is `make web` still running?"));
    reading = new AbortController();
    try {
      await readOne(reading.signal);
    } catch (caught) {
      [lost, error] = [reading.signal.aborted ? [] : begun(), caught];
    }
    for (const [id, one] of lost) {
      heard.delete(id);
      one.reject(error);
    }
  }
  isReading = false;
}

async function readOne(signal) {
  // Past the cache, where a browser has a request wait for another one to the same address, as of the page before a reload.
  const answer = await ask(`api/pictures?${new URLSearchParams({ tab: tab() })}`, { cache: "no-store", signal });
  for await (const [name, { id, ...data }] of events(answer)) {
    const one = heard.get(id);
    if (name === "waiting" || name === "step") {
      one?.tell(name, data);
    } else {
      heard.delete(id);
      one?.resolve([name, data]);
    }
  }
}
