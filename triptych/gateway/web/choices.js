// The choices at the top of every page: the language and the colours, by the browser and the system unless chosen.

import { $ } from "./dom.js";
import { note, noted } from "./notes.js";
import "./words.js";

$("language").value = noted("language", "");
$("language").addEventListener("change", () => {
  note("language", $("language").value);
  location.reload(); // the form and the pictures stay, and those on their way go on
});
$("look").value = document.documentElement.dataset.look;
$("look").addEventListener("change", () => {
  note("look", $("look").value);
  document.documentElement.dataset.look = $("look").value;
});
