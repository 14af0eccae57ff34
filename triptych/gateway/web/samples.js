// The first screen: the model's name, what it can draw, and samples to draw.

import { ask } from "./asking.js";
import { $ } from "./dom.js";
import { draw } from "./drawing.js";
import { NO_PROMPTS, fill } from "./form.js";
import { usual } from "./models.js";
import { leaveOutStart } from "./start.js";
import { t } from "./words.js";

/** Pictures of what can be drawn where the model is the one that drew them, else only their prompts. */
export async function showSamples({ title, about, has_samples }, name) {
  $("about").replaceChildren();
  const strong = document.createElement("strong");
  strong.textContent = title ? t(title) : name;
  $("about").append(strong, about ? ` ${t(about)}` : t(". Say what you want to see, and press Draw."));
  const samples = await (await ask("web/samples.json")).json();
  if ($("model").value !== name) return; // another one was chosen since
  $("samples").replaceChildren(...samples.map((sample) => item(sample, has_samples)));
  $("samples").classList.toggle("shown", has_samples);
}

function item({ prompt, file, seed }, hasPicture) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  if (hasPicture) {
    const image = new Image(256, 256);
    image.src = `web/${file}`;
    image.alt = "";
    button.append(image);
  }
  button.append(prompt);
  button.addEventListener("click", () => {
    leaveOutStart();
    $("count").value = 1;
    fill({ ...usual, ...NO_PROMPTS, prompt_syntax: "", prompt, seed: hasPicture ? seed : "" });
    draw();
  });
  item.append(button);
  return item;
}
