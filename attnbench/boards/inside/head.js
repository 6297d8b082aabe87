// one head: its title, its roles, tokens, histogram and scores
const SVG = "http://www.w3.org/2000/svg";

function drawn(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function drawHistogram(parts) {
  const box = document.getElementById("histogram"), width = 320, height = 130, foot = 18, bar = width / (BINS + 2);
  const most = Math.max(...parts.flatMap(({ shares }) => shares), 1e-9);
  const told = parts.map(({ name, shares }) => `${name}: ${short(shares[0])} are 0`).join(", ");
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height + foot}`, role: "img", "aria-label": `Histogram of weights; ${told}` });
  const at = (bin) => (bin === 0 ? 0 : bin + 1) * bar;
  parts.forEach(({ name, shares, kind }) => {
    const group = drawn("g", { class: kind });
    group.append(drawn("title", {}, name));
    shares.forEach((part, bin) => {
      const tall = (part / most) * (height - 14);
      if (part) group.append(drawn("rect", { x: at(bin) + 0.5, y: height - tall, width: bar - 1, height: tall }));
    });
    svg.append(group);
  });
  svg.append(drawn("line", { x1: 0, x2: width, y1: height, y2: height, class: "axis" }));
  svg.append(drawn("text", { x: bar / 2, y: height + 13, "text-anchor": "middle" }, "0"));
  for (const power of [-8, -6, -4, -2, 0]) {
    const x = at(1) + ((power - low) / (high - low)) * BINS * bar;
    const anchor = power === 0 ? "end" : power === -8 ? "start" : "middle";
    svg.append(drawn("text", { x, y: height + 13, "text-anchor": anchor }, power === 0 ? "1" : `1e${power}`));
  }
  svg.append(drawn("text", { x: width, y: 10, "text-anchor": "end" }, `highest bar ${short(100 * most)} %`));
  const legend = element("p", undefined, "legend");
  for (const { name, kind } of parts) {
    const line = element("span", undefined, kind);
    line.append(element("i"), ` ${name}`);
    legend.append(line);
  }
  if (data.entries !== null) legend.append(element("span", `of the ${data.entries} largest weights a row`));
  box.replaceChildren(svg, legend);
}

function drawScores(method, head) {
  const table = document.getElementById("scores"), compares = method !== DENSE;
  const line = (cells, tag) => {
    const row = element("tr");
    row.append(...cells.map((cell, k) => element(k === 0 ? "th" : tag, cell)));
    return row;
  };
  const named = (study) => {
    const row = element("tr"), cell = element("th", study, "study");
    cell.colSpan = compares ? 4 : 2;
    row.append(cell);
    return row;
  };
  let study = null;
  const rows = data.columns.flatMap((column, number) => {
    if (!column.main) return [];
    const above = column.study === study ? [] : [named(column.study)];
    study = column.study;
    const [dense, other, change] = ["dense", "method", "difference"].map((view) => scoreOf(number, view, method, head));
    return [...above, line([column.name, short(dense), ...(compares ? [short(other), short(change, true)] : [])], "td")];
  });
  const head1 = line(["score", data.methods[DENSE], ...(compares ? [data.methods[method], "difference"] : [])], "th");
  table.replaceChildren(...(rows.length ? [head1, ...rows] : []));
}

function drawTokens(box, { names, special }, chosen, painted, pick) {
  const known = box.dataset.names === JSON.stringify(names);
  if (!known) {
    box.dataset.names = JSON.stringify(names);
    box.replaceChildren(...names.map((name, k) => {
      const token = element("span", name, special[k] ? "token special" : "token");
      if (pick) {
        token.addEventListener("pointerenter", () => pick(k));
        token.addEventListener("click", () => pick(k));
      }
      return token;
    }));
  }
  Array.from(box.children).forEach((token, k) => {
    const paint = painted ? painted(k) : null;
    token.style.background = paint ? css(paint) : "";
    token.style.color = paint ? inkOn(paint) : "";
    token.classList.toggle("chosen", k === chosen);
    if (k === chosen && !pick) token.setAttribute("aria-current", "true");
    else token.removeAttribute("aria-current");
  });
}

function mapScale(both) {
  const bar = element("div", undefined, "bar"), ticks = element("div", undefined, "ticks placed");
  bar.style.background = gradient(both);
  const most = 10 ** high, marks = both ? [-1, -0.25, 0, 0.25, 1] : [0, 0.01, 0.1, 0.4, 1];
  for (const part of marks) {
    const tick = element("span", short(part * most, both));
    tick.style.left = `${100 * share(part * most, both)}%`;
    ticks.append(tick);
  }
  document.getElementById("key").replaceChildren(element("span", both ? "difference" : "weight"), bar, ticks);
}
