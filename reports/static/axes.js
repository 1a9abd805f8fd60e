// Axes, marks and legends that the plots share. Plots are drawn one to one in CSS pixels, so that their text stays readable
// at any width.

const COLOURS = 8;
const SHAPES = [
  "M0-4.6A4.6 4.6 0 0 1 0 4.6A4.6 4.6 0 0 1 0-4.6Z", "M-4-4H4V4H-4Z", "M0-5.6 5.6 0 0 5.6-5.6 0Z", "M0-5.4 5 4H-5Z",
  "M0 5.4 5-4H-5Z", "M-1.7-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7Z", "M-4.6-2.6-2.6-4.6 0-2 2.6-4.6 4.6-2.6 2 0 4.6 2.6 2.6 4.6 0 2-2.6 4.6-4.6 2.6-2 0Z",
  "M0-5.4 5.2-1.6 3.2 4.6H-3.2L-5.2-1.6Z",
];
// Beyond eight methods the colours come again with the next mark, so that the pair stays a method's own.
const shapeOf = (m) => SHAPES[(m + Math.floor(m / COLOURS)) % SHAPES.length];
const colourOf = (m) => `m${m % COLOURS}`;
const DASHES = ["", "6 3", "2 2.5", "9 3 2 3", "12 4"];

function point(m, x, y, { hollow = false, size = 1, title = "" } = {}) {
  return svg("path", { class: colourOf(m), d: shapeOf(m), transform: `translate(${x} ${y}) scale(${size})`, fill: hollow ? "var(--ground)" : "currentColor", stroke: "currentColor", "stroke-width": 1.4 },
    title ? svg("title", {}, title) : null);
}
function scale(values, range, { log = false, zero = false, pad = 0.06, format = null } = {}) {
  let low = Math.min(...values), high = Math.max(...values);
  if (zero) low = Math.min(0, low);
  if (log) { low = Math.log10(low); high = Math.log10(high); }
  let span = high - low;
  if (span === 0) { span = log ? 0.6 : Math.abs(high) * 0.2 || 1; low -= span / 2; high += span / 2; }
  const from = zero && low === 0 ? 0 : low - span * pad;
  const to = high + span * pad;
  const at = (v) => range[0] + ((log ? Math.log10(v) : v) - from) / (to - from) * (range[1] - range[0]);
  at.domain = log ? [10 ** from, 10 ** to] : [from, to];
  at.log = log;
  at.binary = format === bytes;
  at.range = range;
  return at;
}
function ticks(at, most = 6) {
  const [low, high] = at.domain;
  if (at.log) {
    const decades = Math.log10(high / low);
    if (decades > 0.3) {
      if (at.binary) return powersOfTwo(low, high, most);
      const steps = decades < 0.7 ? [1, 1.5, 2, 3, 4, 5, 6, 8] : decades < 1.1 ? [1, 2, 3, 5] : decades < 2.3 ? [1, 2, 5] : [1];
      const every = Math.max(1, Math.ceil(decades / most));
      const found = [];
      for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1) {
        if (e % every === 0) for (const s of steps) found.push(s * 10 ** e);
      }
      return found.filter((t) => t >= low && t <= high);
    }
  }
  const rough = (high - low) / most;
  const unit = at.binary ? 1024 ** Math.max(0, Math.floor(Math.log(2 * rough) / Math.log(1024))) : 1;
  const power = unit * 10 ** Math.floor(Math.log10(rough / unit));
  const step = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= rough);
  const found = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) found.push(Number(t.toPrecision(12)));
  return found.length < 2 && most < 24 ? ticks(at, most * 2) : found; // one number alone gives no scale
}
function powersOfTwo(low, high, most) {
  const first = Math.ceil(Math.log2(low)), last = Math.floor(Math.log2(high));
  const every = Math.max(1, Math.ceil((last - first + 1) / most));
  return Array.from({ length: Math.floor((last - first) / every) + 1 }, (_, i) => 2 ** (first + i * every));
}
const textWidth = (text, size = 11.5) => text.length * size * 0.56;

// An empty plot with both axes; `x` and `y` are {values, format, label, log, zero, ticks}.
function frame(width, height, x, y, label) {
  const rough = scale(y.values, [0, 1], y);
  const left = Math.max(...ticks(rough, 5).map((t) => textWidth(y.format(t)))) + 12;
  const edges = { left: Math.min(left, width / 3), right: 14, top: 22, bottom: 38 };
  const toX = scale(x.values, [edges.left, width - edges.right], x);
  const toY = scale(y.values, [height - edges.bottom, edges.top], y);
  const root = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  let free = -Infinity;
  const xTicks = x.ticks && x.ticks.length <= 8 ? x.ticks : ticks(toX, Math.max(2, Math.floor(width / 95)));
  for (const t of xTicks) {
    root.append(svg("line", { class: "grid", x1: toX(t), x2: toX(t), y1: edges.top, y2: height - edges.bottom }));
    const half = textWidth(x.format(t)) / 2;
    if (toX(t) - half < free) continue; // a label that would touch the one before it is left out
    root.append(svg("text", { x: Math.min(toX(t), width - half), y: height - edges.bottom + 15, "text-anchor": "middle" }, x.format(t)));
    free = toX(t) + half + 6;
  }
  for (const t of ticks(toY, 5)) {
    root.append(svg("line", { class: "grid", x1: edges.left, x2: width - edges.right, y1: toY(t), y2: toY(t) }));
    root.append(svg("text", { x: edges.left - 6, y: toY(t) + 4, "text-anchor": "end" }, y.format(t)));
  }
  root.append(
    svg("line", { class: "base", x1: edges.left, x2: width - edges.right, y1: height - edges.bottom, y2: height - edges.bottom }),
    svg("text", { x: (edges.left + width - edges.right) / 2, y: height - 5, "text-anchor": "middle" }, x.label),
    svg("text", { x: 0, y: 11 }, y.label));
  return { root, toX, toY, edges };
}

function swatch(m, { line = null, hollow = false } = {}) {
  return svg("svg", { viewBox: "0 0 26 12", class: colourOf(m), "aria-hidden": "true" },
    line === null ? null : svg("line", { class: "edge", x1: 0, x2: 26, y1: 6, y2: 6, "stroke-width": 1.8, "stroke-dasharray": line }),
    svg("path", { d: shapeOf(m), transform: "translate(13 6)", fill: hollow ? "var(--ground)" : "currentColor", stroke: "currentColor", "stroke-width": 1.4 }));
}
const legend = (items) => el("ul", { class: "legend" }, items.map(([m, text, options]) => el("li", { class: colourOf(m) }, swatch(m, options), el("span", { class: "text" }, text))));

// A plot with its title, legend and the same numbers as a table.
function figure(title, about, inside, numbers) {
  return el("figure", {}, el("figcaption", {}, title, about ? el("span", { class: "dim" }, about) : null), inside,
    numbers ? el("details", { class: "numbers" }, el("summary", {}, "Numbers"), el("div", { class: "scroll", role: "region", "aria-label": `Numbers of ${title}`, tabindex: "0" }, numbers)) : null);
}
// Rows of one method each, with its name above its bar.
function rowPlot(rows, width, { format, label, log, values, draw, aria }) {
  const step = 40;
  const height = rows.length * step + 30;
  const toX = scale(values, [8, width - 8], { log, format, zero: !log, pad: log ? 0.05 : 0.02 });
  const root = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": aria });
  let free = -Infinity;
  for (const t of ticks(toX, Math.max(2, Math.floor(width / 95)))) {
    const half = textWidth(format(t)) / 2;
    const x = Math.min(Math.max(toX(t), half), width - half);
    root.append(svg("line", { class: "grid", x1: toX(t), x2: toX(t), y1: 2, y2: height - 26 }));
    if (x - half < free) continue;
    root.append(svg("text", { x, y: height - 12, "text-anchor": "middle" }, format(t)));
    free = x + half + 6;
  }
  for (const [i, row] of rows.entries()) {
    const most = Math.floor((width - 90) / 6.6);
    const text = row.name.length > most ? `${row.name.slice(0, most - 1)}…` : row.name;
    root.append(svg("text", { class: "name halo", x: 8, y: i * step + 14 }, text, svg("title", {}, row.name)),
      svg("text", { class: "label halo", x: width - 8, y: i * step + 14, "text-anchor": "end" }, row.value));
    draw(root, row, i * step + 26, toX);
  }
  return [root, el("p", { class: "absent" }, label)];
}
