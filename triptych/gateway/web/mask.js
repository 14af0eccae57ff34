// The mask over the picture to start from: strokes of a brush and an eraser, by pointer or by keys.

import { $, say } from "./dom.js";
import { usualStrength } from "./start.js";
import { keepPart } from "./start_kept.js";
import { t } from "./words.js";

const KEPT = "black"; // diffusers' colours of a mask
const PAINTED_ANEW = "white";
let strokes = []; // { erases, width, points } or { clears }, in the canvas's pixels
let pen = { x: 0, y: 0, down: false }; // where the keys are
let pointer = null; // that paints now; other fingers do not

function mask() {
  return $("mask").getContext("2d", { willReadFrequently: true });
}

/** A mask of a size in pixels, empty or with the strokes of an earlier one. */
export function newMask(width, height, earlier = []) {
  Object.assign($("mask"), { width, height });
  pen = { x: width / 2, y: height / 2 };
  endStroke();
  strokes = earlier;
  showMask();
}

/** Whether anything is to be painted anew. */
export function isMasked() {
  const { width, height } = $("mask");
  return strokes.length > 0 && mask().getImageData(0, 0, width, height).data.some((value, i) => i % 4 === 3 && value > 127);
}

/** The mask as a data: address of a PNG, white where the picture is painted anew. */
export function maskFile() {
  const { width, height } = $("mask");
  const whole = Object.assign(document.createElement("canvas"), { width, height });
  const context = whole.getContext("2d");
  const fill = (how, color) => {
    context.globalCompositeOperation = how;
    context.fillStyle = color;
    context.fillRect(0, 0, width, height);
  };
  context.drawImage($("mask"), 0, 0);
  fill("source-in", PAINTED_ANEW);
  fill("destination-over", KEPT);
  return whole.toDataURL("image/png");
}

function showMask() {
  const { width, height } = $("mask");
  mask().clearRect(0, 0, width, height);
  for (const stroke of strokes) drawStroke(stroke);
  afterStroke();
}

function drawStroke({ clears, erases, width, points }) {
  const context = mask();
  if (clears) return context.clearRect(0, 0, $("mask").width, $("mask").height);
  context.globalCompositeOperation = erases ? "destination-out" : "source-over";
  context.strokeStyle = getComputedStyle($("mask")).color;
  Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round" });
  context.beginPath();
  context.moveTo(...points[0]);
  for (const point of points) context.lineTo(...point);
  context.stroke();
}

/** What depends on whether there is a mask. */
function afterStroke() {
  const masked = isMasked();
  keepPart("strokes", strokes);
  $("undo").disabled = strokes.length === 0;
  $("clear").disabled = !masked;
  usualStrength(masked);
}

function beginStroke(point) {
  const erases = $("eraser").getAttribute("aria-pressed") === "true";
  const width = (Number($("brush-size").value) / 100) * Math.max($("mask").width, $("mask").height);
  strokes.push({ erases, width, points: [point] });
  drawStroke(strokes.at(-1));
}

function goOn(point) {
  strokes.at(-1).points.push(point);
  drawStroke({ ...strokes.at(-1), points: strokes.at(-1).points.slice(-2) });
}

/** Have what is held down paint no more until it is put down again. */
export function endStroke() {
  pointer = null;
  pen.down = false;
}

function undo() {
  if (strokes.length === 0 || pointer !== null) return;
  strokes.pop();
  pen.down = false;
  showMask();
  say(t("Undone"));
}

function choose(tool) {
  for (const id of ["brush", "eraser"]) $(id).setAttribute("aria-pressed", String(id === tool));
}

/** Where an event of the pointer is, in the canvas's pixels. */
function pointOf({ clientX, clientY }) {
  const box = $("mask").getBoundingClientRect();
  const { width, height } = $("mask");
  return [((clientX - box.left) / box.width) * width, ((clientY - box.top) / box.height) * height];
}

function showPen() {
  const { width, height } = $("mask");
  $("pen").style.left = `${(100 * pen.x) / width}%`;
  $("pen").style.top = `${(100 * pen.y) / height}%`;
  $("pen").style.width = `${(Number($("brush-size").value) * Math.max(width, height)) / width}%`;
  $("pen").classList.toggle("down", pen.down);
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function byKey(event) {
  if (pointer !== null) return;
  const { width, height } = $("mask");
  if (MOVES[event.key]) {
    const far = Math.max(width, height) / (event.shiftKey ? 10 : 50);
    const [x, y] = MOVES[event.key];
    pen.x = Math.min(Math.max(pen.x + x * far, 0), width);
    pen.y = Math.min(Math.max(pen.y + y * far, 0), height);
    if (pen.down) goOn([pen.x, pen.y]);
  } else if (event.key === " ") {
    pen.down = !pen.down;
    if (pen.down) beginStroke([pen.x, pen.y]);
    say(pen.down ? t("The brush is down: the arrow keys paint") : t("The brush is up"));
  } else {
    return;
  }
  event.preventDefault();
  afterStroke();
  showPen();
}

$("mask").addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || pointer !== null) return;
  pointer = event.pointerId;
  $("mask").setPointerCapture(pointer);
  pen.down = false;
  beginStroke(pointOf(event));
});
$("mask").addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  const all = event.getCoalescedEvents?.() ?? [];
  for (const one of all.length ? all : [event]) goOn(pointOf(one));
});
$("mask").addEventListener("lostpointercapture", (event) => {
  if (event.pointerId !== pointer) return;
  pointer = null;
  afterStroke();
});
$("mask").addEventListener("keydown", byKey);
$("mask").addEventListener("focus", showPen);
$("brush-size").addEventListener("input", showPen);
$("brush").addEventListener("click", () => choose("brush"));
$("eraser").addEventListener("click", () => choose("eraser"));
$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", () => {
  endStroke();
  strokes.push({ clears: true });
  showMask();
  $("mask").focus();
});
document.addEventListener("keydown", (event) => {
  const isUndo = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey);
  if (isUndo && $("start").contains(document.activeElement)) {
    event.preventDefault();
    undo();
  }
});
