// Claimed against measured: each claim a strip on one logarithmic axis of ratios, the paper's figure at 1.

const FARTHEST = 100; // a ratio beyond this, either way, is an arrow with its value, so that it does not squeeze the others
const STRIP = { width: 220, height: 30, edge: 10 };

const domain = (() => {
  let low = 0.4, high = 2.5;
  for (const { ratio } of core.claims) {
    // An interval may end at nothing; it is followed for a factor of ten, so that it does not squeeze the others.
    for (const v of ratio || []) {
      if (v > 0) { low = Math.min(low, Math.max(v, ratio[0] / 10)); high = Math.max(high, Math.min(v, ratio[0] * 10)); }
    }
  }
  return [Math.max(low / 1.15, 1 / FARTHEST), Math.min(high * 1.15, FARTHEST)];
})();
function place(ratio) {
  const share = Math.log(Math.min(Math.max(ratio, domain[0]), domain[1]) / domain[0]) / Math.log(domain[1] / domain[0]);
  return STRIP.edge + share * (STRIP.width - 2 * STRIP.edge);
}
const stripTicks = (() => {
  const wide = domain[1] / domain[0] > 30;
  return [0.01, 0.1, ...(wide ? [] : [0.2, 0.5]), 1, ...(wide ? [] : [2, 5]), 10, 100]
    .filter((t) => t >= domain[0] * 0.999 && t <= domain[1] * 1.001);
})();

function stripAxis() {
  return svg("svg", { class: "axis", viewBox: `0 0 ${STRIP.width} 12`, "aria-hidden": "true" },
    stripTicks.map((t) => svg("text", { x: place(t), y: 10, "text-anchor": "middle" }, `${t}×`)));
}
function strip(claim) {
  const [value, low, high] = claim.ratio;
  const { width, height } = STRIP;
  const middle = 12;
  const kind = outcomeClass(claim.outcome);
  const measured = low === null ? "" : `, 95 % interval ${number(low, 3)} to ${number(high, 3)}`;
  const drawn = svg("svg", { class: "forest", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Measured is ${number(value, 3)} times the paper's figure${measured}` });
  if (claim.bounds) {
    const left = claim.bounds[0] === null ? 0 : claim.bounds[0] <= domain[0] ? 0 : place(claim.bounds[0]);
    const right = claim.bounds[1] === null || claim.bounds[1] >= domain[1] ? width : place(Math.max(claim.bounds[1], domain[0]));
    if (right > left) drawn.append(svg("rect", { class: "zone", x: left, y: 1, width: Math.max(right - left, 2), height: 22, rx: 2 }));
  }
  for (const t of stripTicks) {
    if (t !== 1) drawn.append(svg("line", { class: "grid", x1: place(t), x2: place(t), y1: 1, y2: 23 }));
    drawn.append(svg("text", { class: "tick", x: place(t), y: 33, "text-anchor": "middle" }, `${t}×`));
  }
  drawn.append(svg("line", { class: "paper", x1: place(1), x2: place(1), y1: 0, y2: 24 }));
  if (claim.spread) {
    const [from, to] = claim.spread.map((v) => (v === null || v <= 0 ? 1 : v));
    drawn.append(svg("line", { class: "spread", x1: place(from), x2: place(to), y1: middle, y2: middle }));
  }
  if (low !== null) {
    const ends = [low > 0 ? place(low) : place(domain[0]), high > 0 ? place(high) : place(domain[0])];
    drawn.append(svg("line", { class: `bar-${kind}`, x1: ends[0], x2: Math.max(ends[1], ends[0] + 1), y1: middle, y2: middle }));
  }
  const off = value < domain[0] ? -1 : value > domain[1] ? 1 : 0;
  if (off) {
    const x = off < 0 ? 2 : width - 2;
    drawn.append(
      svg("path", { class: `fill-${kind}`, d: `M${x} ${middle}l${-off * 8} -5v10z` }),
      svg("text", { class: "value", x: x - off * 12, y: middle + 4, "text-anchor": off < 0 ? "start" : "end" }, `${number(value, 2)}×`));
  } else {
    drawn.append(svg("use", { class: `fill-${kind}`, href: `#mark-${kind}`, x: 0, y: 0, transform: `translate(${place(value)} ${middle}) scale(.85)` }));
  }
  return drawn;
}
