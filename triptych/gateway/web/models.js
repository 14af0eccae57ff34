// The server's models, with one of which there is nothing to choose, and what each does by itself.

import { Lost, ask, untilBack } from "./asking.js";
import { $ } from "./dom.js";
import { clearErrors, fill, recallChoice, showError, showSecondPrompts } from "./form.js";
import { showLoras } from "./loras.js";
import { showSamples } from "./samples.js";
import { showSize } from "./sizes.js";

const NUMBERS = ["num_inference_steps", "guidance_scale", "width", "height"];
export let usual = { schedulers: {} }; // what api/usual says of the chosen model

/** Fill the list, and choose what was chosen in an earlier visit. */
async function showModels() {
  const { models } = await (await ask("api/models")).json();
  const list = $("model");
  list.replaceChildren(...models.map((name) => new Option(name, name)));
  recallChoice(list);
  $("model-field").hidden = models.length < 2;
}

/** The chosen model's own settings in the form: in its empty fields, or, for `anew`, in all of them. */
async function showUsual(anew) {
  usual = await (await ask(`api/usual?model=${encodeURIComponent($("model").value)}`)).json();
  const labels = Object.entries(usual.schedulers);
  $("scheduler").replaceChildren(...labels.map(([name, label]) => new Option(label, name)));
  for (const name of NUMBERS) if (anew || !$(name).value) $(name).value = usual[name];
  $("scheduler").value = usual.scheduler;
  if (!anew) recallChoice($("scheduler"));
  document.body.classList.toggle("takes-pictures", usual.takes_pictures);
  $("start-field").hidden = !usual.takes_pictures;
  showSecondPrompts();
  showSize();
  await showSamples(usual, $("model").value);
  await showLoras();
}

/** Do what asks the server, again and again while it is away, and say what else goes wrong. */
async function orSay(work) {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Lost)) return showError(error.message);
      await untilBack(error);
    }
  }
}

/** Show what the server has. */
export function showServer() {
  return orSay(async () => {
    await showModels();
    await showUsual(false);
  });
}

document.addEventListener("keyfits", () => usual.width || showServer());
document.addEventListener("othermodel", ({ detail: values }) =>
  orSay(async () => {
    await showUsual(true);
    fill(values);
  }),
);
$("model").addEventListener("change", () => {
  clearErrors();
  orSay(() => showUsual(true));
});
