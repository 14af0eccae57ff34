// Pictures on their way: from the form's Draw to the picture's card, through reloads and a server that is away.

import { Lost, PAUSE, ask, failure, pause, send, untilBack } from "./asking.js";
import { $, notice, say } from "./dom.js";
import { clearErrors, count, isFilledIn, seedIsUsed, settings, showError, unfold } from "./form.js";
import { keepPicture, keysOfShown, place, remove, showPicture, showCount, showStep, showWaiting } from "./gallery.js";
import { usual } from "./models.js";
import { note, noted } from "./notes.js";
import { rememberPrompt } from "./prompts.js";
import { forget, keep, kept } from "./store.js";
import { Unknown, addressOf, hear } from "./stream.js";
import { OLD, closed, sure, tab, tellTabs } from "./tab.js";
import { pictures, secondsSaid, t } from "./words.js";

const jobs = new Set();
const TRIES = 5; // of a picture that is not known afterwards
const keyOf = ({ batch, index }) => `${batch} ${index}`; // of a picture, on its way and there
const NONE = { made: 0, busy: 0, seconds: {} }; // of the work before a reload
let made = 0; // steps of pictures that are done, since there was nothing to draw
let busy = 0; // seconds since then
let last = 0; // when the time was looked at, in milliseconds
let end = 0; // when all will be there, as far as can be told, in milliseconds; 0 where it cannot

/** Draw what the form says. */
export function draw() {
  if (!isFilledIn()) return;
  const asked = settings();
  rememberPrompt(asked.prompt);
  unfold(false);
  start(asked, count());
  seedIsUsed();
}

/** Draw some pictures of the same settings, with seeds one after the other, and 0 after the highest. */
export function start(asked, number) {
  clearErrors();
  const batch = Date.now();
  const first = BigInt(asked.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]);
  say(number === 1 ? t("Drawing a picture") : t("Drawing {number} pictures", { number }));
  for (let index = 0; index < number; index++) {
    follow({ batch, index, asked: { ...asked, seed: String(BigInt.asUintN(64, first + BigInt(index))) } });
  }
  scrollTo({ top: 0 }); // where the newest stand
}

async function follow({ batch, index, asked }, before = NONE) {
  const total = asked.num_inference_steps ?? usual.num_inference_steps ?? 20;
  const job = { batch, index, asked, total, step: 0, inLine: false };
  job.seconds = before.seconds[keyOf(job)] ?? 0;
  job.controller = new AbortController();
  job.card = place(job, () => job.controller.abort());
  if (jobs.size === 0) [made, busy, last] = [before.made, before.busy, performance.now()];
  jobs.add(job);
  showAll();
  try {
    await sure;
    await keep("coming", keyOf(job), { tab: tab(), batch, index, asked });
    await drawPatiently(job);
  } catch (error) {
    remove(job.card);
    if (job.controller.signal.aborted) giveUp(job);
    if (error.name === "AbortError") say(t("Cancelled"));
    else showError(error.message, error.field);
  } finally {
    jobs.delete(job);
    forget("coming", keyOf(job));
    showAll();
  }
}

/** Draw a picture, and ask for it again whenever the server was away. */
async function drawPatiently(job) {
  for (let unknown = 0; ; ) {
    try {
      return await drawOnce(job);
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      unknown = error instanceof Unknown ? unknown + 1 : 0;
      if (unknown === TRIES) throw new Error(t("This page's requests reach several gateways, which do not know each other's pictures."));
      passTime();
      Object.assign(job, { step: 0, inLine: true });
      showWaiting(job.card, t("waiting for the server"));
      showAll();
      await untilBack(error, job.controller.signal);
      passTime(); // while it still waits: the server's absence is no picture's time
    }
  }
}

/** Draw a picture that the gateway may have on its way already, from before the page or the connection was lost. */
async function drawOnce(job) {
  job.inLine = false;
  const { signal } = job.controller;
  const { seconds: earlier } = job;
  const begin = async () => {
    const options = { method: "POST", body: JSON.stringify(job.asked), signal };
    const onBusy = (seconds) => {
      showWaiting(job.card, t("busy, again in {seconds} s", { seconds }));
      return [...jobs].some(({ step }) => step > 0); // a key's room may be taken by this tab's own
    };
    const { known } = await (await ask(addressOf(keyOf(job)), options, onBusy)).json();
    if (!known) job.seconds -= earlier; // it begins again
  };
  const [name, data] = await hear(keyOf(job), begin, (...told) => showNews(job, ...told), signal);
  passTime();
  if (name === "error") throw failure(data);
  await finish(job, data);
}

function showNews(job, name, data) {
  passTime();
  if (name === "waiting") {
    wait(job, data);
  } else {
    Object.assign(job, { step: data.step, total: data.total, inLine: false });
    showStep(job.card, data);
  }
  showAll();
}

/** Have the gateway give a picture up, as soon as it can be reached. */
async function giveUp(one, tries = 10) {
  const answer = await send(addressOf(keyOf(one)), { method: "DELETE", keepalive: true }).catch(() => null);
  if (answer || tries === 1) return;
  await pause(PAUSE);
  await giveUp(one, tries - 1);
}

/** Show a picture's place among all that wait for their first step, others' too. */
function wait(job, { place }) {
  job.inLine = place > 1 || [...jobs].some(({ step }) => step > 0);
  showWaiting(job.card, job.inLine ? t("number {place} in line", { place }) : t("starting"));
}

async function finish(job, { file, settings }) {
  made += job.total + 1;
  const bytes = Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0));
  const blob = new Blob([bytes], { type: `image/${settings.output_format}` });
  const { batch, index, seconds } = job;
  const record = { key: keyOf(job), batch, index, seconds, settings, blob };
  await keepPicture(record); // before it is shown: a reload draws what is not kept
  showPicture(job.card, record);
  say(t("Drawn in {time}: {prompt}", { time: secondsSaid(seconds), prompt: settings.prompt }));
  tellTabs("drawnelsewhere", record);
}

/** Share the time since the last look between the pictures that the server is at. */
function passTime() {
  const now = performance.now();
  const going = [...jobs].filter((job) => !job.inLine);
  for (const job of going) job.seconds += (now - last) / 1000 / going.length;
  if (going.length) busy += (now - last) / 1000;
  last = now;
}

/** The progress of all pictures together; decoding counts as one more step each. */
function showAll() {
  if (jobs.size === 0 && document.activeElement === $("cancel")) $("draw").focus();
  document.body.classList.toggle("working", jobs.size > 0);
  $("cancel").hidden = jobs.size === 0;
  const all = [...jobs].reduce((sum, job) => sum + job.total + 1, made);
  const done = [...jobs].reduce((sum, job) => sum + job.step, made);
  $("all-steps").max = all || 1;
  $("all-steps").value = done;
  const isGoing = [...jobs].some((job) => !job.inLine);
  end = done > 1 && isGoing ? performance.now() + (1000 * busy * (all - done)) / done : 0;
  document.title = jobs.size ? `(${jobs.size}) Triptych` : "Triptych";
  showLeft();
  showCount();
}

function showLeft() {
  if (jobs.size === 0) return;
  const left = secondsSaid(Math.max(1, Math.ceil((end - performance.now()) / 1000)));
  const going = pictures(jobs.size);
  $("all-said").textContent = end ? t("{going} to come, about {left} left", { going, left }) : t("{going} to come", { going });
}

export function cancelAll() {
  for (const job of jobs) job.controller.abort();
}

/** The pictures that were on their way when a tab was left: this one's go on after a reload, others are asked about. */
export async function pickUp() {
  await sure;
  const before = noted("progress", NONE, { inTab: true });
  const coming = await kept("coming");
  const begun = new Set([...jobs].map(keyOf)); // since the page is here
  const all = coming.filter((one) => !begun.has(keyOf(one)));
  const there = keysOfShown();
  const isOver = (one) => one.batch < Date.now() - OLD || there.has(keyOf(one));
  for (const one of all.filter(isOver)) forget("coming", keyOf(one));
  const left = all.filter((one) => !isOver(one));
  const isReload = performance.getEntriesByType("navigation")[0]?.type === "reload";
  const isOwn = (one) => one.tab === tab();
  if (isReload) left.filter(isOwn).forEach((one) => follow(one, before));
  const names = new Set(left.filter((one) => !isOwn(one)).map((one) => one.tab));
  const orphaned = await closed([...names]); // another open tab's pictures are its own affair
  const earlier = left.filter((one) => orphaned.includes(one.tab) || (isOwn(one) && !isReload));
  if (earlier.length === 0) return;
  const stillLeft = async () => {
    const tabs = new Map((await kept("coming")).map((one) => [keyOf(one), one.tab]));
    return earlier.filter((one) => tabs.get(keyOf(one)) === one.tab); // not those that another tab was told to draw or leave
  };
  const goOn = async () => (await stillLeft()).forEach((one) => follow(one));
  const leave = async () => {
    for (const one of await stillLeft()) {
      forget("coming", keyOf(one));
      giveUp(one);
    }
  };
  const one = t("1 picture was on its way when this page was left.");
  const more = t("{number} pictures were on their way when this page was left.", { number: earlier.length });
  notice(earlier.length === 1 ? one : more, [t("Draw them"), goOn], [t("Leave them"), leave]);
}

$("cancel").addEventListener("click", cancelAll);
addEventListener("pagehide", () => {
  passTime();
  const seconds = Object.fromEntries([...jobs].map((job) => [keyOf(job), job.seconds]));
  note("progress", { made, busy, seconds }, { inTab: true });
});
setInterval(showLeft, 1000);
