// All pictures as one file: a ZIP whose files are stored as they are, since pictures hardly get smaller.

import { $ } from "./dom.js";
import { cards, recordOf } from "./gallery.js";

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
  return byte;
});

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Numbers of 2 or 4 bytes, little end first: [value, bytes] each. */
function packed(...numbers) {
  const view = new DataView(new ArrayBuffer(numbers.reduce((sum, [, bytes]) => sum + bytes, 0)));
  let at = 0;
  for (const [value, bytes] of numbers) {
    if (bytes === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  return new Uint8Array(view.buffer);
}

/** A ZIP of files, { name, bytes, date } each; names in UTF-8. See APPNOTE.TXT, 4.3 and 4.4. */
export function zipOf(files) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, bytes, date } of files) {
    const path = new TextEncoder().encode(name);
    const time = (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
    const day = ((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate();
    const sizes = [[crc32(bytes), 4], [bytes.length, 4], [bytes.length, 4], [path.length, 2], [0, 2]];
    const common = [[20, 2], [0x0800, 2], [0, 2], [time, 2], [day, 2], ...sizes];
    const header = packed([0x04034b50, 4], ...common);
    parts.push(header, path, bytes);
    directory.push(packed([0x02014b50, 4], [20, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]), path);
    offset += header.length + path.length + bytes.length;
  }
  const length = directory.reduce((sum, part) => sum + part.length, 0);
  const number = files.length;
  const end = packed([0x06054b50, 4], [0, 2], [0, 2], [number, 2], [number, 2], [length, 4], [offset, 4], [0, 2]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

async function downloadAll() {
  const records = cards().map(recordOf).reverse(); // the oldest first
  const files = records.map(async ({ settings, blob, batch }, i) => ({
    name: `${String(i + 1).padStart(3, "0")}-${settings.seed}.${settings.output_format}`,
    bytes: new Uint8Array(await blob.arrayBuffer()),
    date: new Date(batch),
  }));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(zipOf(await Promise.all(files)));
  link.download = "triptych.zip";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

$("download-all").addEventListener("click", downloadAll);
