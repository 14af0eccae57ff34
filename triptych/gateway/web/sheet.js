// What a picture was made with, in a sheet at the side.

import { $, closable, doing } from "./dom.js";
import { NO_PROMPTS, syntaxOf, use } from "./form.js";
import { LABELS } from "./labels.js";
import { copyLink } from "./links.js";
import { lorasSaid } from "./loras.js";
import { modelSaid, usual } from "./models.js";
import { secondsSaid, serverSaid, t, timeSaid, valueSaid } from "./words.js";

let shown = {}; // the settings in the sheet

/** Show a picture's settings, with ways to use them again. */
export function openSheet({ settings, seconds, batch }) {
  shown = settings;
  const list = $("sheet").querySelector("dl");
  list.replaceChildren();
  for (const [label, text] of [...settingsSaid(settings), ["Time", secondsSaid(seconds)]]) describe(list, label, text);
  describe(list, "Drawn", timeSaid(batch));
  $("sheet").querySelector(".prompt").textContent = settings.prompt;
  showWarnings($("sheet").querySelector(".warnings"), settings.warnings ?? []);
  $("sheet-said").textContent = "";
  $("sheet").showModal();
}

/** [label, text] of each of a picture's settings but its prompt. */
export function settingsSaid(settings) {
  const { model, scheduler, loras } = settings;
  const said = { model: modelSaid(model), scheduler: usual.schedulers[scheduler] ?? scheduler, loras: lorasSaid(loras) };
  const values = { ...settings, ...said };
  const there = Object.keys(LABELS).filter((name) => name !== "prompt" && values[name]?.toString());
  return there.map((name) => [LABELS[name], valueSaid(name, values[name])]);
}

function describe(list, label, text) {
  const name = document.createElement("dt");
  const value = document.createElement("dd");
  name.textContent = t(label);
  value.textContent = text;
  list.append(name, value);
}

/** What was cut, changed or not understood, beside the picture. */
export function showWarnings(list, warnings) {
  const item = (text) => Object.assign(document.createElement("li"), { textContent: text });
  const items = warnings.map((warning) => item(serverSaid(warning)));
  list.replaceChildren(...items);
  list.hidden = warnings.length === 0;
}

function useAgain(seed) {
  $("sheet").close();
  if ($("viewer").open) $("viewer").close();
  use({ ...NO_PROMPTS, ...shown, ...syntaxOf(shown), seed });
}

closable($("sheet"));
doing($("sheet"), "new-seed").addEventListener("click", () => useAgain(""));
doing($("sheet"), "same-seed").addEventListener("click", () => useAgain(shown.seed));
doing($("sheet"), "link").addEventListener("click", () => copyLink(shown, $("sheet-said")));
