"use strict";

// The colours that were chosen: before anything is shown, so that nothing flashes.

document.documentElement.dataset.look = localStorage.getItem("look") ?? "";
