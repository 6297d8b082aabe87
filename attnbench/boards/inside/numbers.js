const data = JSON.parse(document.getElementById("data").textContent);
const { low, high, steps, left, hidden } = data.scale;
const DENSE = 0;
// weights by level: NaN where a query may not see, undefined where it was left out
const WEIGHTS = Array.from({ length: 256 }, (_, level) =>
  level === 0 ? 0 : level === hidden ? NaN : level === left ? undefined : 10 ** (low + ((high - low) * (level - 1)) / steps));
const BINS = 32; // of equal numbers of levels, beside one of zeros
const held = new Map();

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function inflated(coded) {
  const bytes = Uint8Array.from(atob(coded), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function maps(text, method) {
  const name = `maps-${text}-${method}`, source = document.getElementById(name);
  if (!source) return Promise.resolve(null);
  if (!held.has(name)) held.set(name, inflated(source.textContent));
  return held.get(name);
}

function sides(text, kind) {
  const { queries, keys } = data.texts[text].tokens[kind];
  return { queries, keys, rows: queries.names.length, columns: keys.names.length };
}

function heads() {
  return data.places.flatMap((place, at) => Array.from({ length: place.heads }, (_, head) => ({ ...place, at, head })));
}
const HEADS = heads();
const KEPT = data.kept === null ? null : new Set(data.kept);

function levelsOf(all, text, head) {
  let from = 0;
  for (let k = 0; k < head; k++) {
    const { rows, columns } = sides(text, HEADS[k].kind);
    if (KEPT === null || KEPT.has(k)) from += rows * columns;
  }
  const { rows, columns } = sides(text, HEADS[head].kind);
  return all.subarray(from, from + rows * columns);
}

function differenceOf(level, dense) {
  if (level === hidden || dense === hidden) return NaN;
  if (level === left || dense === left) return undefined;
  return Math.abs(level - dense) <= 1 ? 0 : WEIGHTS[level] - WEIGHTS[dense];
}

function counted(levels) {
  const counts = new Array(BINS + 1).fill(0);
  let seen = 0;
  for (const level of levels) {
    if (level === hidden || level === left) continue;
    counts[level === 0 ? 0 : 1 + Math.min(BINS - 1, Math.floor(((level - 1) * BINS) / (steps + 1)))] += 1;
    seen += 1;
  }
  return counts.map((count) => count / (seen || 1));
}

function dark() {
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function mixed(anchors, share) {
  const at = Math.min(1, Math.max(0, share)) * (anchors.length - 1), below = Math.min(anchors.length - 2, Math.floor(at));
  return anchors[below].map((part, k) => Math.round(part + (at - below) * (anchors[below + 1][k] - part)));
}

const DARK = [[255, 132, 110], [150, 52, 44], [38, 38, 38], [36, 88, 140], [110, 180, 245]];

function colour(share, both) {
  return mixed(both ? (dark() ? DARK : data.colours.both) : data.colours.one, share);
}

function css([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

function inkOn([red, green, blue]) {
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#111" : "#fff";
}

function gradient(both) {
  return `linear-gradient(to right, ${Array.from({ length: 21 }, (_, k) => css(colour(k / 20, both))).join(", ")})`;
}

function short(value, sign) {
  if (value === undefined) return "small";
  if (value === null || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  const text = size === 0 ? "0" : size < 0.0005 || size >= 1e4 ? size.toExponential(1) : String(Number(size.toPrecision(3)));
  return (value < 0 ? "−" : sign && value > 0 ? "+" : "") + text.replace("e-", "e−");
}
