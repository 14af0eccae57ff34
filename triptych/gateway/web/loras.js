"use strict";

// The LoRAs of a picture: a list to choose from, and of each that is chosen how much. `$` and `ask` are page.js's.

/** Fill the list with the chosen model's LoRAs; without any there is nothing to choose. */
async function showLoras() {
  const names = await (await ask(`api/loras?model=${encodeURIComponent($("model").value)}`, {})).json();
  $("loras").replaceChildren(...names.map((name) => new Option(name, name)));
  $("loras-field").hidden = names.length === 0 && chosenLoras().length === 0;
}

/** What a request says of them. */
function chosenLoras() {
  const rows = [...$("chosen-loras").children];
  return rows.map((row) => ({ name: row.dataset.name, scale: Number(row.querySelector("input").value) }));
}

/** Have these chosen and no others. */
function chooseLoras(loras) {
  $("chosen-loras").replaceChildren();
  for (const { name, scale } of loras) chooseLora(name, scale);
}

function chooseLora(name, scale) {
  if (chosenLoras().some((one) => one.name === name)) return;
  const row = document.getElementById("chosen-lora").content.cloneNode(true).firstElementChild;
  row.dataset.name = name;
  row.querySelector("span").textContent = name;
  const input = row.querySelector("input");
  input.value = scale;
  input.setAttribute("aria-label", `Scale of ${name}`);
  input.addEventListener("change", () => {
    const wanted = input.value === "" ? 1 : Number(input.value);
    input.value = Math.min(4, Math.max(-4, wanted));
  });
  const button = row.querySelector("button");
  button.setAttribute("aria-label", `Leave out ${name}`);
  button.addEventListener("click", () => {
    row.remove();
    $("loras").focus();
  });
  $("chosen-loras").append(row);
  $("loras-field").hidden = false;
}

/** Them and their scales, for people. */
function lorasSaid(loras) {
  return (loras ?? []).map(({ name, scale }) => `${name} ${scale}`).join(", ");
}

document.getElementById("add-lora").addEventListener("click", () => chooseLora($("loras").value, 1));
