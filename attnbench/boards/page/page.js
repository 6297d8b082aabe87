"use strict";
const records = JSON.parse(document.getElementById("records").textContent);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function valueOf(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value === undefined) return cell.firstChild ? cell.firstChild.textContent : "";
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

function sortBy(header) {
  const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
  const text = header.classList.contains("text");
  const first = text ? "ascending" : "descending", other = text ? "descending" : "ascending";
  const before = header.getAttribute("aria-sort");
  const order = before === first ? other : before === other ? null : first;
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  // a control stands under its method in the board's own order only, which the third click brings back
  table.classList.toggle("sorted", order !== null);
  if (order === null) return body.append(...Array.from(body.rows).sort((a, b) => a.dataset.place - b.dataset.place));
  header.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const rows = Array.from(body.rows, (row) => [valueOf(row, column), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  });
  body.append(...rows.map(([, row]) => row));
}

// every row once, with what it is filtered by: a family is the name that a method begins with
const lines = Array.from(document.querySelectorAll("table.board tbody tr"), (row, place) => {
  row.dataset.place = place;
  const method = row.querySelector(".method").textContent;
  return { row, text: row.textContent.toLowerCase(), family: (method.match(/^[a-z][a-z-]*/) || [method])[0] };
});
const CONTROLS = ["dense", "uniform"];

function filter() {
  const wanted = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const family = document.getElementById("family").value;
  let shown = 0;
  for (const { row, text, family: own } of lines) {
    const named = !family || own === family || CONTROLS.includes(own);
    row.hidden = !named || !wanted.every((word) => (word[0] === "-" && word[1] ? !text.includes(word.slice(1)) : text.includes(word)));
    shown += !row.hidden;
  }
  document.getElementById("count").textContent = `${shown} of ${lines.length} rows`;
}

function offerFamilies() {
  const choice = document.getElementById("family");
  const names = [...new Set(lines.map((line) => line.family))].filter((name) => !CONTROLS.includes(name));
  choice.append(...names.sort().map((name) => element("option", name)));
  choice.closest("label").hidden = names.length < 2;
  let before = null;
  for (const { row, family } of lines) {
    // in the board's own order a family stands together, in order of amount
    row.classList.toggle("first", before !== null && family !== before && row.parentNode === lines[row.dataset.place - 1].row.parentNode);
    before = family;
  }
}

function offerLink(event) {
  const row = event.target.closest("table.board tbody tr[id]");
  if (!row || row.querySelector("a.link")) return;
  const link = element("a", "#", "link");
  link.href = `#${row.id}`;
  link.title = "link to this row";
  row.querySelector(".method").append(link);
}

function goTo() {
  // a row that is linked to is shown, whatever is filtered
  const row = location.hash && document.getElementById(location.hash.slice(1));
  if (!row || !row.hidden) return;
  for (const name of ["filter", "family"]) document.getElementById(name).value = "";
  filter();
  row.scrollIntoView();
}

function plain(value) {
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(6)));
  return value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value);
}

function isMatrix(value) {
  const rows = value && typeof value === "object" && !Array.isArray(value) ? Object.values(value) : [];
  return rows.length > 0 && rows.every((row) => Array.isArray(row) && row.length && row.every((x) => typeof x === "number"));
}

function matrix(value) {
  const numbers = Object.values(value).flat(), low = Math.min(...numbers), spread = Math.max(...numbers) - low || 1;
  const table = element("table", undefined, "heat");
  for (const [name, row] of Object.entries(value)) {
    const line = table.insertRow();
    line.append(element("th", name));
    for (const x of row) {
      const cell = line.insertCell(), share = (x - low) / spread;
      cell.textContent = String(Number(x.toPrecision(2)));
      cell.style.background = `hsl(0 0% ${Math.round(100 - 75 * share)}%)`;
      cell.style.color = share > 0.55 ? "#fff" : "#111";
    }
  }
  return table;
}

function tableOf(values) {
  const table = element("table");
  for (const [key, value] of Object.entries(values)) {
    const row = table.insertRow();
    row.append(element("th", key));
    const cell = row.insertCell();
    if (isMatrix(value)) cell.append(matrix(value));
    else if (value && typeof value === "object" && !Array.isArray(value)) cell.append(tableOf(value));
    else cell.textContent = plain(value);
  }
  return table;
}

function show(places) {
  const dialog = document.getElementById("record"), body = dialog.querySelector(".body");
  body.replaceChildren();
  for (const place of places) {
    const item = records[place];
    body.append(element("h2", `${item.cell.method}: ${item.cell.model}, ${item.cell.task}`));
    body.append(element("p", item.error ? `${item.status}: ${item.error}` : item.status));
    body.append(element("h3", "The command that measures it again"), element("pre", item.reproduce));
    for (const name of ["metrics", "receipt", "measured", "fitted", "settings", "seconds", "provenance", "environment"]) {
      if (Object.keys(item[name]).length) body.append(element("h3", name), tableOf(item[name]));
    }
    body.append(element("p", `Measured: ${item.date}`));
  }
  dialog.showModal();
  dialog.scrollTop = 0;
}

offerFamilies();
for (const header of document.querySelectorAll("table.board th")) {
  header.querySelector("button").addEventListener("click", () => sortBy(header));
}
for (const button of document.querySelectorAll("button[data-records]")) {
  button.addEventListener("click", () => show(button.dataset.records.split(" ")));
}
for (const wide of document.querySelectorAll(".wide")) {
  // a table that goes on to the right says so, until its last column is in sight
  const told = () => {
    wide.toggleAttribute("data-wide", wide.clientWidth < wide.scrollWidth - 1);
    wide.toggleAttribute("data-more", wide.scrollLeft + wide.clientWidth < wide.scrollWidth - 1);
  };
  wide.addEventListener("scroll", told, { passive: true });
  new ResizeObserver(told).observe(wide);
}
for (const name of ["filter", "family"]) document.getElementById(name).addEventListener("input", filter);
for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, offerLink);
window.addEventListener("hashchange", goTo);
document.querySelector("#record .close").addEventListener("click", () => document.getElementById("record").close());
filter();
goTo();
