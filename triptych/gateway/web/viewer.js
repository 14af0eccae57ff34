// Pictures in their own size, one at a time or two beside each other.

import { $, closable, doing, say } from "./dom.js";
import { bringBack, cards, drop, larger, moreLike, offer, recordOf, whyNotLarger } from "./gallery.js";
import { copyLink, copyPicture } from "./links.js";
import { openSheet, settingsSaid } from "./sheet.js";
import { sizeOfPicture } from "./sizes.js";
import { startFrom } from "./start.js";
import { secondsSaid, t } from "./words.js";

const [FIRST, SECOND] = $("stage").children;
const MOVES = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
let shown = null; // the card whose picture is seen alone
let firstPicked = null; // while two are picked to be compared; it may be deleted meanwhile

/** Show the picture of a card in its own size. */
export function open(card) {
  shown = card;
  const record = recordOf(card);
  put(FIRST, card, [record.settings.prompt, ""]);
  SECOND.hidden = true;
  showPlace();
  const button = doing($("viewer"), "larger");
  button.title = whyNotLarger(record.settings) || button.ariaLabel;
  button.ariaDisabled = String(button.title !== button.ariaLabel);
  offer(doing($("viewer"), "download"), record, FIRST.querySelector("img").src);
  present(false);
}

/** Say of the picture that is seen alone which one of all it is. */
function showPlace() {
  const { settings, seconds } = recordOf(shown);
  const { width, height } = sizeOfPicture(settings);
  const all = cards();
  const [number, total] = [all.indexOf(shown) + 1, all.length];
  const made = t("seed {seed}, {time}", { seed: settings.seed, time: secondsSaid(seconds) });
  FIRST.querySelector("figcaption p:last-child").textContent = `${width} × ${height} · ${made} · ${number} / ${total}`;
  doing($("viewer"), "before").disabled = number === 1;
  doing($("viewer"), "after").disabled = number === total;
}

const isAlone = () => $("viewer").open && !$("viewer").classList.contains("comparison");

/** Go on with as many pictures as there are now. */
export function recount() {
  if (isAlone() && shown.isConnected) showPlace();
  if (cards().length < 2) stopComparing();
}

function present(isPair) {
  $("viewer").classList.toggle("comparison", isPair);
  $("viewer-said").textContent = "";
  if (!$("viewer").open) $("viewer").showModal();
  fit();
}

function put(figure, card, lines) {
  const image = figure.querySelector("img");
  image.src = card.querySelector(".picture img").src;
  image.alt = recordOf(card).settings.prompt;
  const { width, height } = sizeOfPicture(recordOf(card).settings);
  image.style.setProperty("--width", width);
  image.style.setProperty("--height", height);
  figure.hidden = false;
  figure.querySelector("figcaption").replaceChildren(
    ...lines.map((text) => Object.assign(document.createElement("p"), { textContent: text })),
  );
}

/** Set what depends on the window's size. Zoomed, a picture has its own size where it else is seen smaller, or twice that. */
function fit() {
  const isZoomed = $("viewer").classList.contains("zoomed");
  $("viewer").classList.remove("zoomed");
  $("stage").style.setProperty("--ratio", devicePixelRatio); // one of the screen's own pixels for each of a picture's
  const ownWidth = (image) => Number(image.style.getPropertyValue("--width")) / devicePixelRatio;
  const isSmaller = (image) => image.getBoundingClientRect().width < ownWidth(image) - 0.5;
  const times = [...$("stage").querySelectorAll("figure:not([hidden]) img")].some(isSmaller) ? 1 : 2;
  $("stage").style.setProperty("--times", times);
  const button = doing($("viewer"), "zoom");
  button.title = button.ariaLabel = times === 1 ? t("In its own size") : t("Twice as large");
  $("viewer").classList.toggle("zoomed", isZoomed);
  for (const line of $("stage").querySelectorAll("figcaption p")) {
    if (line.scrollHeight > line.clientHeight + 1) line.tabIndex = 0; // what scrolls must be reached by keys
    else line.removeAttribute("tabindex");
  }
}

for (const figure of [FIRST, SECOND]) figure.querySelector("img").addEventListener("load", fit);
addEventListener("resize", () => $("viewer").open && fit());

function move(by) {
  const all = cards();
  const next = all[all.indexOf(shown) + by];
  if (!next) return;
  open(next);
  next.scrollIntoView({ block: "nearest" });
}

// Two beside each other.

/** Whether a click on a card picked it for a comparison. */
export function picked(card) {
  if (!document.body.classList.contains("comparing")) return false;
  if (!firstPicked?.isConnected) {
    firstPicked = card;
    card.classList.add("picked");
    say(t("Choose the other one"));
  } else {
    const first = firstPicked;
    stopComparing();
    if (first !== card) compare(first, card);
  }
  return true;
}

function compare(one, other) {
  const said = [one, other].map((card) => [["Prompt", recordOf(card).settings.prompt], ...settingsSaid(recordOf(card).settings)]);
  const differing = said.map((own, i) => {
    const others = new Map(said[1 - i]);
    return own.filter(([label, text]) => others.get(label) !== text).map(([label, text]) => `${t(label)}: ${text}`);
  });
  shown = other; // gets the focus at the end
  put(FIRST, one, differing[0]);
  put(SECOND, other, differing[1]);
  present(true);
}

export function stopComparing() {
  firstPicked?.classList.remove("picked");
  firstPicked = null;
  document.body.classList.remove("comparing");
  $("compare").setAttribute("aria-pressed", "false");
}

$("compare").addEventListener("click", () => {
  if (document.body.classList.contains("comparing")) return stopComparing();
  document.body.classList.add("comparing");
  $("compare").setAttribute("aria-pressed", "true");
  say(t("Choose two pictures"));
});

// What people do.

const ACTIONS = {
  before: () => move(-1),
  after: () => move(1),
  zoom: () => {
    const isLarge = $("viewer").classList.toggle("zoomed");
    doing($("viewer"), "zoom").setAttribute("aria-pressed", String(isLarge));
    if (isLarge) $("stage").tabIndex = 0;
    else $("stage").removeAttribute("tabindex");
  },
  copy: () => copyPicture(recordOf(shown), $("viewer-said")),
  link: () => copyLink(recordOf(shown).settings, $("viewer-said")),
  sheet: () => openSheet(recordOf(shown)),
  start: () => {
    $("viewer").close();
    startFrom(recordOf(shown).blob);
  },
  larger: () => {
    $("viewer-said").textContent = whyNotLarger(recordOf(shown).settings);
    if ($("viewer-said").textContent) return;
    $("viewer").close();
    larger(recordOf(shown));
  },
  more: () => {
    $("viewer").close();
    moreLike(recordOf(shown));
  },
  delete: () => {
    const next = drop(shown);
    if (next) {
      open(next);
      $("viewer-said").textContent = t("The picture is deleted.");
    } else {
      $("viewer").close();
      doing($("bar"), "bring-back").focus();
    }
  },
  "bring-back": () => {
    const card = bringBack();
    if (!card) return;
    open(card);
    $("viewer-said").textContent = t("The picture is back.");
    if (doing($("viewer"), "bring-back").hidden) doing($("viewer"), "delete").focus();
  },
};
for (const [name, action] of Object.entries(ACTIONS)) doing($("viewer"), name).addEventListener("click", action);
doing($("bar"), "bring-back").addEventListener("click", bringBack);
closable($("viewer"));
$("stage").addEventListener("click", ({ target }) => target === $("stage") && $("viewer").close());
document.addEventListener("keydown", (event) => {
  const isSeen = isAlone() && !$("sheet").open;
  const undoes = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey;
  if (undoes && isSeen) ACTIONS["bring-back"]();
  else if (undoes && !document.activeElement?.closest("#form") && !document.querySelector("dialog[open]")) bringBack();
  const scrolls = document.activeElement.matches("#stage, #stage p");
  if (!isSeen || scrolls || !MOVES[event.key]) return;
  event.preventDefault();
  move(MOVES[event.key]);
});
document.addEventListener("deletedelsewhere", ({ detail: key }) => isAlone() && recordOf(shown).key === key && $("viewer").close());
$("viewer").addEventListener("close", () => {
  const isTaken = document.activeElement?.closest("#form"); // the sheet has filled it
  if (!isTaken && shown?.isConnected) shown.querySelector(".picture").focus();
});
