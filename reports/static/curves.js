// Plots over something: latency over the size of the work, and series over epochs or steps.

const MOST_LINES = 12;

function growthPlot(data, comparison, parameter, width) {
  const lines = comparison.growth[parameter];
  if (!lines?.length) return null;
  const name = (line) => [data.methods[line.m], line.v].filter(Boolean).join(", ");
  const dash = dashes(lines);
  const drawn = firstOf(lines, MOST_LINES, (some) => {
    const xs = some.flatMap((l) => l.x);
    const sizes = [...new Set(xs)].sort((a, b) => a - b);
    const { root, toX, toY } = frame(width, Math.min(360, width * 0.8),
      { values: xs, format: number, label: parameter, log: true, ticks: sizes },
      { values: some.flatMap((l) => l.y).filter((v) => v > 0), format: seconds, label: "latency", log: true },
      `Latency over ${parameter}: ${some.map((l) => `${name(l)} ${exponent(l)}`).join("; ")}`);
    for (const l of some) {
      root.append(svg("path", { class: `line edge ${colourOf(l.m)}`, d: path(l.x, l.y, toX, toY), "stroke-dasharray": dash(l) }));
      l.x.forEach((x, i) => root.append(point(l.m, toX(x), toY(l.y[i]), { size: 0.7, title: `${name(l)}, ${parameter}=${number(x)}: ${seconds(l.y[i])}` })));
    }
    return el("div", {}, root, legend(some.map((l) => [l.m, `${name(l)}: ${exponent(l)}`, { line: dash(l) }])));
  });
  const sizes = [...new Set(lines.flatMap((l) => l.x))].sort((a, b) => a - b);
  const numbers = table(["Method", "exponent", ...sizes.map((s) => `${parameter}=${number(s)}`)],
    lines.map((l) => [name(l), exponent(l), ...sizes.map((s) => { const i = l.x.indexOf(s); return i < 0 ? "–" : seconds(l.y[i]); })]), sizes.map((_, i) => i + 2));
  return figure(`Growth of latency with ${parameter}`, `Both axes logarithmic; latency grows as ${parameter} to the power of the exponent, in brackets its 95 % interval`, drawn, numbers);
}
function exponent(line) {
  if (line.exponent === null || line.exponent === undefined) return "too few sizes for an exponent";
  const range = line.low === null ? " (one seed, no interval)" : ` [${line.low.toFixed(2)}, ${line.high.toFixed(2)}]`;
  return `exponent ${line.exponent.toFixed(2)}${range}`;
}
// Lines of one method share its colour; a dash tells them apart.
function dashes(lines) {
  const variants = [...new Set(lines.map((l) => l.v || ""))];
  return (line) => DASHES[variants.indexOf(line.v || "") % DASHES.length];
}
function path(xs, ys, toX, toY) {
  let pen = false;
  return xs.map((x, i) => {
    const y = ys[i];
    if (x === null || y === null || (toY.log && y <= 0) || (toX.log && x <= 0)) { pen = false; return ""; }
    const step = `${pen ? "L" : "M"}${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`;
    pen = true;
    return step;
  }).join("");
}

function seriesPlot(data, series, setting, width) {
  const curves = series.curves.filter((c) => c.s === setting);
  if (!curves.length) return null;
  const name = (c) => [data.methods[c.m], c.v].filter(Boolean).join(", ");
  const dash = dashes(curves);
  const drawn = firstOf(curves, MOST_LINES, (some) => {
    const ys = some.flatMap((c) => [...c.y, ...(c.low || []), ...(c.high || [])]).filter((v) => v !== null);
    const xs = some.flatMap((c) => c.x).filter((v) => v !== null);
    const logX = Math.min(...xs) > 0 && Math.max(...xs) / Math.min(...xs) > 2000;
    const logY = Math.min(...ys) > 0 && Math.max(...ys) / Math.min(...ys) > 200;
    const { root, toX, toY } = frame(width, Math.min(300, width * 0.68), { values: xs, format: number, label: series.x_label, log: logX, pad: 0.02 },
      { values: ys, format: number, label: series.y_label, log: logY }, `${series.name} over ${series.x_label}: ${[...new Set(some.map(name))].join(", ")}`);
    for (const c of some) {
      if (c.low) {
        const back = path([...c.x].reverse(), [...c.low].reverse(), toX, toY).replace(/^M/, "L");
        root.append(svg("path", { class: `ink ${colourOf(c.m)}`, d: `${path(c.x, c.high, toX, toY)}${back}Z`, opacity: 0.13 }));
      }
      root.append(svg("path", { class: `line edge ${colourOf(c.m)}`, d: path(c.x, c.y, toX, toY), "stroke-dasharray": dash(c) }));
      const every = Math.max(1, Math.ceil(c.x.length / 6));
      c.x.forEach((x, i) => {
        if ((i % every === 0 || i === c.x.length - 1) && c.y[i] !== null && !(toY.log && c.y[i] <= 0) && !(toX.log && x <= 0)) root.append(point(c.m, toX(x), toY(c.y[i]), { size: 0.62, title: `${name(c)}: ${number(c.y[i])} at ${number(x)}` }));
      });
    }
    const once = [...new Map(some.map((c) => [name(c), c])).values()];
    return el("div", {}, root, legend(once.map((c) => [c.m, name(c), { line: dash(c) }])));
  });
  const several = Math.max(...curves.map((c) => c.n));
  const last = curves.map((c) => [name(c), String(c.n), number(c.y[0]), number(c.y[c.y.length - 1]), number(c.x[c.x.length - 1])]);
  return figure(series.name, several > 1 ? `Mean of ${several} seeds; the band spans the seeds` : "One seed", drawn,
    table(["Method", "seeds", "at the start", "at the end", series.x_label], last, [1, 2, 3, 4]));
}
