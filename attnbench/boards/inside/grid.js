// the grids of heads: a kind of attention each, layer 0 at the bottom, one scale for all
const cells = [];

function scoreOf(column, view, method, head) {
  const values = data.columns[column].values, one = values[view === "dense" ? DENSE : method][head];
  if (view !== "difference") return one;
  const dense = values[DENSE][head];
  return one === null || dense === null ? null : one - dense;
}

function bounds(column, view) {
  const { values } = data.columns[column], numbers = values.flat().filter((value) => value !== null);
  const size = numbers.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  if (view !== "difference") return { least: Math.min(...numbers), most: Math.max(...numbers), none: -1 };
  let most = 0;
  values.forEach((_, method) => HEADS.forEach((_, head) => {
    most = Math.max(most, Math.abs(scoreOf(column, view, method, head) ?? 0));
  }));
  return { least: -most, most, none: data.rounding * size };
}

function highest(column) {
  const values = data.columns.length ? data.columns[column].values[DENSE] : [];
  return values.reduce((best, value, k) => (value !== null && (values[best] === null || value > values[best]) ? k : best), 0);
}

function drawGrids(choose, move) {
  const grids = document.getElementById("grids");
  const kinds = [...new Set(data.places.map((place) => place.kind))];
  document.querySelector("main").style.setProperty("--widest", Math.max(...data.places.map((place) => place.heads)));
  for (const kind of kinds) {
    const widest = Math.max(...HEADS.filter((each) => each.kind === kind).map((each) => each.head + 1));
    const box = element("div", undefined, "kind"), grid = element("div", undefined, "grid");
    box.append(element("h3", `${kind} heads, a row a layer`));
    grid.setAttribute("role", "grid");
    grid.setAttribute("aria-label", `${kind} heads, a row a layer`);
    grid.style.setProperty("--heads", widest);
    const layers = data.places.map((place, at) => ({ ...place, at })).filter((place) => place.kind === kind);
    for (const place of layers.reverse()) grid.append(rowOf(place, choose));
    const numbers = element("div", undefined, "row");
    numbers.setAttribute("aria-hidden", "true");
    numbers.append(element("span", "", "number"));
    for (let head = 0; head < widest; head++) numbers.append(element("span", String(head), "number"));
    grid.append(numbers);
    grid.addEventListener("keydown", move);
    const wide = element("div", undefined, "wide");
    wide.append(grid);
    box.append(wide);
    grids.append(box);
  }
}

function rowOf(place, choose) {
  const row = element("div", undefined, "row");
  row.setAttribute("role", "row");
  const name = element("span", String(place.layer), "number");
  name.setAttribute("role", "rowheader");
  name.setAttribute("aria-label", `layer ${place.layer}`);
  row.append(name);
  HEADS.forEach((each, number) => {
    if (each.at !== place.at) return;
    const cell = element("div", undefined, "cell");
    cell.setAttribute("role", "gridcell");
    cell.tabIndex = -1;
    cell.addEventListener("click", () => choose(number));
    cells[number] = cell;
    row.append(cell);
  });
  return row;
}

function colourGrids({ score, view, method, head }) {
  const range = data.columns.length ? bounds(score, view) : null, both = view === "difference";
  const roles = data.roles[view === "dense" ? DENSE : method];
  cells.forEach((cell, number) => {
    const value = range ? scoreOf(score, view, method, number) : null;
    const noise = value === null || (both && Math.abs(value) <= range.none);
    const span = range ? range.most - range.least : 0;
    const paint = noise ? null : colour(span ? (value - range.least) / span : 0.5, both);
    cell.style.background = paint ? css(paint) : "";
    cell.style.color = paint ? inkOn(paint) : "";
    cell.classList.toggle("none", noise);
    cell.replaceChildren(...roles[number].slice(0, 2).map((role) => element("span", data.badges[role], "badge")));
    if (roles[number].length > 2) cell.lastChild.textContent += "+";
    const { kind, layer, head: own } = HEADS[number];
    const told = [`${kind} layer ${layer} head ${own}`, ...(range ? [`${data.columns[score].name} ${short(value, both)}`] : []), ...roles[number]];
    cell.title = told.join(" · ");
    cell.setAttribute("aria-label", told.join(", "));
    cell.setAttribute("aria-selected", String(number === head));
    cell.tabIndex = number === head ? 0 : -1;
  });
  scaleOf(document.getElementById("scale"), range, both, range ? data.columns[score].name : "");
  badgesOf(roles);
}

function scaleOf(box, range, both, name) {
  if (!range) return box.replaceChildren();
  const bar = element("div", undefined, "bar");
  bar.style.background = gradient(both);
  const middle = both ? 0 : (range.least + range.most) / 2;
  const ticks = element("div", undefined, "ticks");
  ticks.append(...[range.least, middle, range.most].map((value) => element("span", short(value, both))));
  box.replaceChildren(element("span", both ? `change of ${name}` : name), bar, ticks);
}

function badgesOf(roles) {
  const found = [...new Set(roles.flat())];
  document.getElementById("badges").replaceChildren(
    ...found.map((role) => {
      const line = element("span");
      line.append(element("b", data.badges[role], "badge"), ` ${role}`);
      return line;
    }),
  );
}

function moved(number, key) {
  const { at, head, kind } = HEADS[number], widest = data.places[at].heads - 1;
  const layers = data.places.flatMap((place, k) => (place.kind === kind ? [k] : []));
  const row = layers.indexOf(at);
  const [up, to] = {
    ArrowLeft: [0, head - 1], ArrowRight: [0, head + 1], ArrowUp: [1, head], ArrowDown: [-1, head], Home: [0, 0], End: [0, widest],
  }[key] ?? [];
  if (to === undefined || to < 0) return null;
  const place = layers[row + up];
  const found = HEADS.findIndex((each) => each.at === place && each.head === to);
  return found < 0 ? null : found;
}
