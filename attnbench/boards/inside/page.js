// what is chosen, and all that follows from it
const state = { score: data.first, view: "dense", method: data.methods.length > 1 ? 1 : 0, text: 0, head: highest(data.first), query: 0, key: 0 };
const at = (name) => document.getElementById(name);
let shown = null, asked = 0;

function clamp() {
  if (!data.texts.length) return;
  const { rows, columns } = sides(state.text, HEADS[state.head].kind);
  state.query = Math.min(state.query, rows - 1);
  state.key = Math.min(state.key, columns - 1);
}

async function show() {
  const number = ++asked, { kind, layer, head } = HEADS[state.head];
  clamp();
  colourGrids(state);
  at("title").textContent = `${kind} layer ${layer}, head ${head}`;
  const roles = data.roles[state.view === "dense" ? DENSE : state.method][state.head];
  at("has").textContent = roles.join(" · ");
  drawScores(state.method, state.head);
  mapScale(state.view === "difference");
  let why = "";
  if (!data.texts.length) why = "No text is short enough for a map here.";
  else if (KEPT && !KEPT.has(state.head)) why = "To keep the file small, this head has no map: see How to read it.";
  else if (typeof DecompressionStream === "undefined") why = "This browser cannot open the maps: it has no DecompressionStream.";
  else if (state.view !== "dense" && data.absent[state.method]) why = `${data.methods[state.method]} ${data.absent[state.method]}.`;
  if (why) {
    shown = null;
    [at("map"), at("key"), at("histogram")].forEach((part) => { part.hidden = true; });
    for (const part of [at("queries"), at("keys")]) { part.replaceChildren(); delete part.dataset.names; }
    at("readout").textContent = why;
    document.body.dataset.ready = String(number);
    return;
  }
  const [dense, other] = await Promise.all([maps(state.text, DENSE), maps(state.text, state.method)]);
  if (number !== asked) return; // something else was chosen meanwhile
  [at("map"), at("key"), at("histogram")].forEach((part) => { part.hidden = false; });
  const mine = levelsOf(dense, state.text, state.head), changed = other ? levelsOf(other, state.text, state.head) : mine;
  const parts = [{ name: data.methods[DENSE], shares: counted(mine), kind: "one" }];
  if (state.method !== DENSE && other) parts.push({ name: data.methods[state.method], shares: counted(changed), kind: "other" });
  drawHistogram(parts);
  const both = state.view === "difference", { queries, keys, columns } = sides(state.text, kind);
  const values = Array.from(state.view === "dense" ? mine : changed, (level, k) => (both ? differenceOf(level, mine[k]) : WEIGHTS[level]));
  shown = { values, queries, keys, columns, both, mine, changed };
  point();
  document.body.dataset.ready = String(number);
}

function point(query = state.query, key = state.key) {
  Object.assign(state, { query, key });
  if (!shown) return;
  const { values, queries, keys, columns, both, mine, changed } = shown, place = query * columns + key;
  drawMap({ values, queries: queries.names, keys: keys.names, both, query, key });
  const of = (k) => values[query * columns + k];
  drawTokens(at("queries"), queries, query, null, (k) => point(k, state.key));
  drawTokens(at("keys"), keys, key, (k) => (of(k) === undefined || Number.isNaN(of(k)) ? null : colour(share(of(k), both), both)), null);
  const seen = mine[place] === hidden;
  const told = [`${data.methods[DENSE]} ${short(WEIGHTS[mine[place]])}`];
  if (state.method !== DENSE && !data.absent[state.method]) {
    told.push(`${data.methods[state.method]} ${short(WEIGHTS[changed[place]])}`, `difference ${short(differenceOf(changed[place], mine[place]), true)}`);
  }
  at("readout").textContent = `“${queries.names[query]}” → “${keys.names[key]}”: ${seen ? "not visible" : told.join(" · ")}`;
  map.setAttribute("aria-label", `Attention map, ${queries.names.length} by ${keys.names.length} tokens; arrow keys move. ${at("readout").textContent}`);
}

function choose(head, focus) {
  state.head = head;
  show();
  if (focus) cells[head].focus({ preventScroll: false });
  else if (at("head").getBoundingClientRect().top > window.innerHeight * 0.8) at("head").scrollIntoView({ block: "start" });
}

function options(select, names, chosen, change) {
  names.forEach((name, k) => { const made = element("option", name); made.value = String(k); select.append(made); });
  select.value = String(chosen);
  select.addEventListener("change", () => change(Number(select.value)));
}

function views() {
  const names = { dense: data.methods[DENSE], method: data.methods[state.method], difference: "difference" };
  for (const label of document.querySelectorAll("#views label")) label.lastChild.textContent = names[label.firstChild.value];
}

function begin() {
  options(at("text"), data.texts.map((text, k) => `${k + 1}. ${text.text.length > 60 ? `${text.text.slice(0, 60)}…` : text.text}`), 0, (text) => { state.text = text; show(); });
  options(at("score"), data.columns.map((column) => `${column.study}: ${column.name}`), state.score, (score) => { state.score = score; show(); });
  options(at("method"), data.methods.slice(1), 0, (method) => { state.method = method + 1; views(); show(); });
  at("text").parentNode.hidden = data.texts.length < 1;
  at("score").parentNode.hidden = data.columns.length < 1;
  at("which").hidden = data.methods.length < 3;
  at("views").hidden = data.methods.length < 2;
  for (const view of ["dense", "method", "difference"]) {
    const label = element("label"), radio = element("input");
    Object.assign(radio, { type: "radio", name: "view", value: view, checked: view === state.view });
    radio.addEventListener("change", () => { state.view = view; show(); });
    label.append(radio, element("span", view));
    at("views").append(label);
  }
  views();
  drawGrids((head) => choose(head, false), (event) => {
    const next = moved(state.head, event.key);
    if (next === null) return;
    event.preventDefault();
    choose(next, true);
  });
  for (const name of ["pointermove", "pointerdown"]) {
    map.addEventListener(name, (event) => { const entry = entryAt(event); if (entry) point(...entry); });
  }
  map.addEventListener("keydown", (event) => {
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (down === undefined || !shown) return;
    event.preventDefault();
    point(Math.min(shape.rows - 1, Math.max(0, state.query + down)), Math.min(shape.columns - 1, Math.max(0, state.key + right)));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  window.addEventListener("resize", () => point());
  show();
}

begin();
