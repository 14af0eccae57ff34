// The server's models, with one of which there is nothing to choose, and what each does by itself.

import { Lost, ask, untilBack } from "./asking.js";
import { $ } from "./dom.js";
import { clearErrors, remember, showError, showSecondPrompts } from "./form.js";
import { showLoras } from "./loras.js";
import { showSamples } from "./samples.js";
import { showSize } from "./sizes.js";
import { takeShape } from "./start.js";
import { t } from "./words.js";

const NUMBERS = ["num_inference_steps", "guidance_scale", "width", "height"];
let served = { models: [], titles: {} }; // what api/models says
export let usual = { schedulers: {} }; // what api/usual says of the chosen model

/** Fill the list, and choose what was chosen before. */
async function showModels() {
  served = await (await ask("api/models")).json();
  const { models } = served;
  const list = $("model");
  const chosen = list.value;
  list.replaceChildren(...models.map((name) => new Option(modelSaid(name), name)));
  if (models.includes(chosen)) list.value = chosen;
  $("model-field").hidden = models.length < 2;
}

/** A model for people: by its title, with its name where there are several. */
export function modelSaid(name) {
  const { models, titles } = served;
  if (!Object.hasOwn(titles, name)) return name;
  return models.length > 1 ? `${t(titles[name])} (${name})` : t(titles[name]);
}

const CHOICES = [...NUMBERS, "scheduler"]; // which every model has a usual value for
/** What their fields say. */
const said = () => Object.fromEntries(CHOICES.map((name) => [name, $(name).value]));
/** What they say by themselves. */
const byItself = () => Object.fromEntries(CHOICES.map((name) => [name, String(usual[name])]));

/**
 * The chosen model's own settings in the form, or those of `values`: in its empty fields, or, with what all fields
 * said before, in those that still say it.
 */
async function showUsual(before, values = {}) {
  const model = $("model").value;
  const own = await (await ask(`api/usual?model=${encodeURIComponent(model)}`)).json();
  if ($("model").value !== model) return; // another one was chosen since
  usual = own;
  const isOpen = (name) => (before ? $(name).value === before[name] : !$(name).value);
  for (const name of NUMBERS.filter(isOpen)) $(name).value = values[name] ?? usual[name];
  showSchedulers(isOpen("scheduler") ? values.scheduler : $("scheduler").value);
  document.body.classList.toggle("takes-pictures", usual.takes_pictures);
  $("start-field").hidden = !usual.takes_pictures;
  showSecondPrompts();
  showSize();
  await Promise.all([showSamples(usual, model), showLoras(model)]);
}

/** Fill the list of schedulers, and choose one, the model's own where it has none of that name. */
function showSchedulers(chosen) {
  const { scheduler: own, schedulers } = usual;
  const options = Object.entries(schedulers).map(([name, label]) => {
    const text = name === own ? t("{scheduler} (the model's own)", { scheduler: label }) : label;
    return new Option(text, name);
  });
  $("scheduler").replaceChildren(...options);
  $("scheduler").value = chosen in schedulers ? chosen : own;
}

/** Do what asks the server, again and again while it is away, and say what else goes wrong. */
async function orSay(work) {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (error.name === "AbortError") return; // no key was given
      if (!(error instanceof Lost)) return showError(error.message);
      await untilBack(error);
    }
  }
}

/** Show what the server has; with what the fields said by themselves before, only in those that still say it. */
export function showServer(before) {
  return orSay(async () => {
    await showModels();
    await showUsual(before);
  });
}

document.addEventListener("keyfits", () => usual.width || showServer());
document.addEventListener("serverback", () => usual.width && showServer(byItself())); // maybe with another model
document.addEventListener("othermodel", ({ detail: values }) => {
  const before = said();
  orSay(async () => {
    await showUsual(before, values);
    remember();
  });
});
$("model").addEventListener("change", () => {
  clearErrors();
  const before = said();
  const since = performance.now();
  orSay(async () => {
    await showUsual(before);
    takeShape(since);
    remember();
  });
});
$("unlock").addEventListener("click", () => orSay(() => ask("api/models"))); // asks for the key
