// The choices at the top of every page: the language and the colours, by the browser and the system unless chosen.

import { $ } from "./dom.js";
import { note, noted } from "./notes.js";
import "./words.js";

$("language").value = noted("language", "");
$("language").addEventListener("change", () => {
  if (note("language", $("language").value)) location.reload(); // form and pictures stay, and those on their way go on
  else $("language").value = ""; // a reload would lose all that and change nothing
});
$("look").value = document.documentElement.dataset.look;
$("look").addEventListener("change", () => {
  note("look", $("look").value);
  document.documentElement.dataset.look = $("look").value;
});
addEventListener("pageshow", ({ persisted }) => {
  if (!persisted) return; // by a browser that shows a page again as it was left: something else may have been chosen since
  document.documentElement.dataset.look = $("look").value = noted("look", "");
  if (noted("language", "") !== $("language").value) location.reload();
});
