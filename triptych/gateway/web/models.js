"use strict";

// The list of the server's models; with one there is nothing to choose. `$`, `ask` and `showUsual` are page.js's.

/** Fill the list, and choose what was chosen in an earlier visit. */
async function showModels() {
  const { models } = await (await ask("api/models", {})).json();
  const list = $("model");
  list.replaceChildren(...models.map((name) => new Option(name, name)));
  const before = localStorage.getItem("model");
  if (models.includes(before)) list.value = before;
  $("model-field").hidden = models.length < 2;
}

document.getElementById("model").addEventListener("change", async ({ target }) => {
  localStorage.setItem("model", target.value);
  await showUsual(true);
});
