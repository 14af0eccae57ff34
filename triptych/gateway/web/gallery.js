"use strict";

// The cards of the gallery. `LABELS`, `schedulers` and `use` are page.js's, `startFrom` is start.js's.

function fromTemplate(id) {
  return $(id).content.cloneNode(true).firstElementChild;
}

function coming({ width, height, prompt }) {
  const card = fromTemplate("on-its-way");
  card.querySelector(".frame").style.aspectRatio = `${width} / ${height}`;
  card.querySelector("progress").setAttribute("aria-label", `Steps of: ${prompt}`);
  $("gallery").prepend(card);
  return card;
}

function step(card, { step, total, preview }) {
  const bar = card.querySelector("progress");
  bar.max = total;
  bar.value = step;
  card.querySelector(".steps").textContent = step < total ? `step ${step} of ${total}` : "decoding";
  if (preview) {
    const image = card.querySelector("img");
    image.src = `data:image/png;base64,${preview}`;
    image.alt = `A preview after ${step} of ${total} steps`;
    image.hidden = false;
  }
}

function drawn({ file, settings, seconds }) {
  const card = fromTemplate("drawn");
  const bytes = Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0));
  const type = `image/${settings.output_format}`;
  const blob = new Blob([bytes], { type });
  const url = URL.createObjectURL(blob);
  const image = card.querySelector("img");
  image.src = url;
  image.alt = settings.prompt;
  const frame = card.querySelector(".frame");
  frame.style.aspectRatio = `${settings.width} / ${settings.height}`;
  frame.setAttribute("aria-label", `Enlarge: ${settings.prompt}`);
  card.querySelector(".prompt").textContent = settings.prompt;
  showWarnings(card.querySelector(".warnings"), settings.warnings ?? []);
  const list = card.querySelector("dl");
  const shown = { ...settings, scheduler: schedulers[settings.scheduler] ?? settings.scheduler };
  shown.loras = lorasSaid(settings.loras);
  for (const [name, label] of Object.entries(LABELS)) {
    if (name !== "prompt" && shown[name]?.toString()) describe(list, label, shown[name].toString());
  }
  describe(list, "Time", `${seconds.toFixed(1)} s`);
  const download = card.querySelector("[data-does=download]");
  download.href = url;
  download.download = `triptych-${settings.seed}.${settings.output_format}`;
  download.setAttribute("aria-label", `Download: ${settings.prompt}`);
  const again = card.querySelector("[data-does=use]");
  again.setAttribute("aria-label", `Use these settings: ${settings.prompt}`);
  again.addEventListener("click", () => use({ ...settings, ...syntaxOf(settings) }));
  const begin = card.querySelector("[data-does=start]");
  begin.setAttribute("aria-label", `Start from it: ${settings.prompt}`);
  begin.addEventListener("click", () => startFrom(blob));
  frame.addEventListener("click", () => enlarge(image));
  return card;
}

/** What was cut, changed or not understood, beside the picture. */
function showWarnings(list, warnings) {
  list.replaceChildren(
    ...warnings.map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    }),
  );
  list.hidden = warnings.length === 0;
}

function describe(list, label, text) {
  const name = document.createElement("dt");
  const value = document.createElement("dd");
  name.textContent = label;
  value.textContent = text;
  list.append(name, value);
}

function enlarge({ src, alt }) {
  const image = $("large").querySelector("img");
  image.src = src;
  image.alt = alt;
  $("large").showModal();
}
