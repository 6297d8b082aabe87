// the map of a head on a canvas: a row is a query, a column a key; tokens on its axes where there is room
const LABEL = 11; // pixels that a token on an axis needs
const map = document.getElementById("map");
const shape = { cell: 1, leftEdge: 0, topEdge: 0, rows: 0, columns: 0 };

// small weights are told apart by the square root, of differences too
function share(value, both) {
  const size = Math.sqrt(Math.min(1, Math.abs(value) / 10 ** high));
  return both ? 0.5 + (Math.sign(value) * size) / 2 : size;
}

function drawMap({ values, queries, keys, both, query, key }) {
  const rows = queries.length, columns = keys.length, room = document.getElementById("frame").clientWidth;
  const style = getComputedStyle(document.body), ratio = window.devicePixelRatio || 1;
  const pen = map.getContext("2d");
  pen.font = `${LABEL}px system-ui, sans-serif`;
  const longest = Math.min(90, Math.max(...[...queries, ...keys].map((name) => pen.measureText(name).width)) + 8);
  const labelled = (room - longest) / columns >= LABEL;
  const edge = labelled ? longest : 4;
  const cell = Math.max(1, Math.min(26, Math.floor(((room - edge) / columns) * ratio) / ratio, 640 / Math.max(rows / 2, columns)));
  Object.assign(shape, { cell, leftEdge: edge, topEdge: edge, rows, columns });
  const width = edge + cell * columns + 1, height = edge + cell * rows + 1;
  map.width = Math.ceil(width * ratio);
  map.height = Math.ceil(height * ratio);
  map.style.width = `${width}px`;
  map.style.height = `${height}px`;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(pixels(values, rows, columns, both), edge, edge, cell * columns, cell * rows);
  pen.strokeStyle = style.color;
  pen.lineWidth = 1;
  pen.globalAlpha = 0.35;
  pen.strokeRect(edge - 0.5, edge - 0.5, cell * columns + 1, cell * rows + 1);
  pen.globalAlpha = 1;
  if (labelled) labels(pen, style, queries, keys, query, key);
  if (query !== null) mark(pen, style, query, key);
}

function pixels(values, rows, columns, both) {
  const picture = document.createElement("canvas");
  picture.width = columns;
  picture.height = rows;
  const pen = picture.getContext("2d"), image = pen.createImageData(columns, rows);
  values.forEach((value, k) => {
    if (Number.isNaN(value)) return; // what a query may not see has no colour
    // what was left out is less than the rest of its row: a paler nothing
    const [red, green, blue] = colour(share(value ?? 0, both), both);
    image.data.set([red, green, blue, value === undefined ? 170 : 255], 4 * k);
  });
  pen.putImageData(image, 0, 0);
  return picture;
}

function labels(pen, style, queries, keys, query, key) {
  const { cell, leftEdge, topEdge } = shape;
  const name = (text) => {
    let cut = text;
    while (cut.length > 1 && pen.measureText(cut === text ? cut : `${cut}…`).width > leftEdge - 6) cut = cut.slice(0, -1);
    return cut === text ? text : `${cut}…`;
  };
  pen.font = `${LABEL}px system-ui, sans-serif`;
  pen.fillStyle = style.color;
  pen.textBaseline = "middle";
  queries.forEach((text, k) => {
    pen.textAlign = "right";
    pen.globalAlpha = query === null || query === k ? 1 : 0.6;
    pen.fillText(name(text), leftEdge - 4, topEdge + cell * (k + 0.5));
  });
  keys.forEach((text, k) => {
    pen.save();
    pen.translate(leftEdge + cell * (k + 0.5), topEdge - 4);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "left";
    pen.globalAlpha = key === null || key === k ? 1 : 0.6;
    pen.fillText(name(text), 0, 0);
    pen.restore();
  });
  pen.globalAlpha = 1;
}

function mark(pen, style, query, key) {
  const { cell, leftEdge, topEdge, columns } = shape;
  pen.strokeStyle = style.color;
  pen.globalAlpha = 0.6;
  pen.strokeRect(leftEdge - 0.5, topEdge + cell * query - 0.5, cell * columns + 1, cell + 1);
  pen.globalAlpha = 1;
  if (key === null) return;
  const size = Math.max(cell, 5), middle = (cell - size) / 2;
  for (const [line, colour] of [[4, style.backgroundColor], [2, style.color]]) {
    pen.lineWidth = line;
    pen.strokeStyle = colour;
    pen.strokeRect(leftEdge + cell * key + middle, topEdge + cell * query + middle, size, size);
  }
}

function entryAt(event) {
  const box = map.getBoundingClientRect();
  const key = Math.floor((event.clientX - box.left - shape.leftEdge) / shape.cell);
  const query = Math.floor((event.clientY - box.top - shape.topEdge) / shape.cell);
  return query >= 0 && query < shape.rows && key >= 0 && key < shape.columns ? [query, key] : null;
}
