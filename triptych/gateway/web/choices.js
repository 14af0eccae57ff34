// The choices at the top of every page: the language and the colours, by the browser and the system unless chosen.

import { $, notice } from "./dom.js";
import { note, noted } from "./notes.js";
import { t } from "./words.js";

$("language").value = noted("language", "");
$("language").addEventListener("change", () => {
  const change = () => {
    note("language", $("language").value);
    location.reload(); // the form and the pictures stay
  };
  const stay = () => ($("language").value = noted("language", ""));
  if (!document.body.classList.contains("working")) return change();
  const text = t("The page is loaded anew for another language: pictures on their way begin again.");
  notice(text, [t("Change it now"), change], [t("Not now"), stay]);
});
$("look").value = document.documentElement.dataset.look;
$("look").addEventListener("change", () => {
  note("look", $("look").value);
  document.documentElement.dataset.look = $("look").value;
});
