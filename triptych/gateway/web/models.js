"use strict";

// The list of the server's models; with one there is nothing to choose. `schedulers`, `usualArea` and `showError` are page.js's.

/** Fill the list, and choose what was chosen in an earlier visit. */
async function showModels() {
  const { models } = await (await ask("api/models", {})).json();
  const list = $("model");
  list.replaceChildren(...models.map((name) => new Option(name, name)));
  const before = localStorage.getItem("model");
  if (models.includes(before)) list.value = before;
  $("model-field").hidden = models.length < 2;
}

/** The chosen model's own settings in the form: in its empty fields, or in all of them. */
async function showUsual(all) {
  const usual = await (await ask(`api/usual?model=${encodeURIComponent($("model").value)}`, {})).json();
  Object.assign(schedulers, usual.schedulers);
  $("scheduler").replaceChildren(...Object.entries(schedulers).map(([name, label]) => new Option(label, name)));
  for (const name of NUMBERS) if (all || !$(name).value) $(name).value = usual[name];
  $("scheduler").value = usual.scheduler;
  usualArea = usual.width * usual.height;
  document.body.classList.toggle("takes-pictures", usual.takes_pictures);
  $("start-field").hidden = !usual.takes_pictures;
  await showLoras();
}

/** Do what asks the server, and say what goes wrong. */
async function orSay(work) {
  try {
    await work();
  } catch (error) {
    showError(error instanceof TypeError ? "The gateway cannot be reached." : error.message);
  }
}

$("model").addEventListener("change", ({ target }) => {
  localStorage.setItem("model", target.value);
  orSay(() => showUsual(true));
});
