"use strict";

const NUMBERS = ["num_inference_steps", "guidance_scale", "width", "height"];
const TEXTS = ["model", "prompt", "negative_prompt", "scheduler", "prompt_syntax", "seed"];
const LABELS = {
  prompt: "Prompt",
  model: "Model",
  negative_prompt: "Negative prompt",
  num_inference_steps: "Steps",
  guidance_scale: "Guidance",
  seed: "Seed",
  width: "Width",
  height: "Height",
  scheduler: "Scheduler",
  timestep_spacing: "Timestep spacing",
  eta: "Eta",
  prompt_syntax: "Prompts are read as",
  loras: "LoRAs",
  clip_skip: "Clip skip",
  guidance_rescale: "Guidance rescale",
  strength: "Strength",
};
const OTHERS = ["timestep_spacing", "eta", "clip_skip", "guidance_rescale"]; // without a field in the form
let others = {}; // those of them that a picture brought
const schedulers = {}; // each by its name for people
let usualArea = 0; // pixels of the model's own size

const drawing = new Set(); // an AbortController for each picture on its way

// The form.

function settings() {
  const asked = { ...others };
  for (const name of TEXTS) if ($(name).value.trim()) asked[name] = $(name).value.trim();
  asked.prompt = $("prompt").value;
  for (const name of NUMBERS) if ($(name).value) asked[name] = Number($(name).value);
  const loras = chosenLoras();
  if (loras.length) asked.loras = loras;
  return { ...asked, ...startSettings() };
}

function fill(values) {
  for (const name of [...TEXTS, ...NUMBERS]) {
    const value = values[name];
    const isThere = [...($(name).options ?? [])].some((option) => option.value === value);
    if (value !== undefined && value !== null && (isThere || !$(name).options)) $(name).value = value;
  }
  fillStrength(values);
  keepOthers(Object.fromEntries(OTHERS.filter((name) => name in values).map((name) => [name, values[name]])));
  chooseLoras(values.loras ?? []);
  clearErrors();
}

function keepOthers(values) {
  others = values;
  const said = Object.entries(others).map(([name, value]) => `${LABELS[name].toLowerCase()} ${value}`);
  $("others-said").textContent = `Also as in the picture: ${said.join(", ")}.`;
  $("others").hidden = said.length === 0;
}

function clearErrors() {
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  for (const error of document.querySelectorAll(".error")) error.textContent = "";
  $("alert").textContent = "";
}

/** Show what is wrong at the field that it is about, else above the pictures. */
function showError(message, field) {
  const input = field && $(field.split(".")[0].replace("mask_image", "image"));
  if (input && $(`${input.id}-error`)) {
    const [, said] = message.match(/; allowed: (.*)/s) ?? message.match(/^\w+: (.*)/s) ?? [null, message];
    $(`${input.id}-error`).textContent = message.includes("; allowed: ") ? `Allowed: ${said}` : said;
    input.setAttribute("aria-invalid", "true");
    input.focus();
    say(`${LABELS[input.id] ?? "Pictures"}: ${said}`);
  } else {
    $("alert").textContent = message;
  }
}

function isFilledIn() {
  clearErrors();
  if (!$("prompt").value.trim()) return showError("prompt: Say what to draw", "prompt"), false;
  if (!/^\d*$/.test($("seed").value.trim())) return showError("seed: A whole number, or nothing", "seed"), false;
  for (const input of $("form").querySelectorAll("input[type=number]")) {
    if (!input.checkValidity()) return showError(`${input.id}: ${input.validationMessage}`, input.id), false;
  }
  return true;
}

function rollSeed() {
  $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
  say(`Seed ${$("seed").value}`);
}

function say(text) {
  $("status").textContent = text;
}

// Pictures.

function draw() {
  if (!isFilledIn()) return;
  const asked = settings();
  const count = Number($("count").value);
  say(count === 1 ? "Drawing a picture" : `Drawing ${count} pictures`);
  const first = BigInt(asked.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]);
  const pictures = Array.from({ length: count }, (_, i) => ({ ...asked, seed: String(first + BigInt(i)) }));
  // The first of them stands first.
  for (const one of pictures.reverse()) follow(one);
  $("gallery").firstElementChild.scrollIntoView({ block: "nearest" });
}

async function follow(asked) {
  const controller = new AbortController();
  const card = coming(asked);
  drawing.add(controller);
  showState();
  try {
    const options = { method: "POST", body: JSON.stringify(asked), signal: controller.signal };
    const busy = (seconds) => (card.querySelector(".steps").textContent = `busy, again in ${seconds} s`);
    const answer = await ask("api/picture", options, busy);
    for await (const [name, data] of events(answer)) {
      if (name === "step") step(card, data);
      else if (name === "error") throw Object.assign(new Error(data.message), { field: data.field });
      else card.replaceWith(drawn(data));
      if (name === "picture") say(`Drawn in ${data.seconds.toFixed(1)} seconds: ${data.settings.prompt}`);
    }
    if (card.isConnected) throw new Error("The connection ended before the picture was there.");
  } catch (error) {
    card.remove();
    if (error.name === "AbortError") say("Cancelled");
    else showError(error instanceof TypeError ? "The gateway cannot be reached." : error.message, error.field);
  } finally {
    drawing.delete(controller);
    showState();
  }
}

function showState() {
  if (drawing.size === 0 && document.activeElement === $("cancel")) $("draw").focus();
  $("cancel").hidden = drawing.size === 0;
  $("empty").hidden = $("gallery").children.length > 0;
}

function cancel() {
  for (const controller of drawing) controller.abort();
}

/** What the form shows for a picture's syntax: plain words have no name there. */
function syntaxOf({ prompt_syntax }) {
  return { prompt_syntax: prompt_syntax === "webui" ? "webui" : "" };
}

function use(values) {
  fill(values);
  $("prompt").focus();
  say("The settings are in the form");
}

// The settings in a picture.

async function readFile(file) {
  $("alert").textContent = "";
  try {
    const type = { "Content-Type": file.type || "application/octet-stream" };
    const answer = await ask("api/settings", { method: "POST", body: file, headers: type });
    const told = await answer.json();
    use({ negative_prompt: "", ...told, ...syntaxOf(told) });
    $("alert").textContent = (told.warnings ?? []).join("; ");
  } catch (error) {
    showError(`${file.name}: ${error.message.replace(/^image: /, "")}`);
  }
}

// What people do.

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  draw();
});
$("cancel").addEventListener("click", cancel);
$("others-drop").addEventListener("click", () => {
  keepOthers({});
  $("prompt").focus();
});
$("prompt_syntax").value = localStorage.getItem("prompt_syntax") ?? "";
$("prompt_syntax").addEventListener("change", () => {
  localStorage.setItem("prompt_syntax", $("prompt_syntax").value);
});
$("dice").addEventListener("click", rollSeed);
$("file").addEventListener("change", () => {
  if ($("file").files[0]) readFile($("file").files[0]);
  $("file").value = "";
});
$("large").addEventListener("click", () => $("large").close());
for (const example of document.querySelectorAll("#examples button")) {
  example.addEventListener("click", () => use({ prompt: example.textContent }));
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) draw();
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) cancel();
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  if (event.dataTransfer.types.includes("Files")) document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.dataTransfer.files[0]) dropped(event.dataTransfer.files[0]);
});

orSay(async () => {
  await showModels();
  await showUsual(false);
});
