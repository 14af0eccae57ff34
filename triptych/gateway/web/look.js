"use strict";

// The colours that were chosen: before anything is shown, so that nothing flashes.

try {
  document.documentElement.dataset.look = JSON.parse(localStorage.getItem("triptych look")) ?? ""; // notes.js's
} catch {
  document.documentElement.dataset.look = "";
}
