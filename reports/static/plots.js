// The plots of one comparison at one setting: latency, memory, and quality against both.

const nameOf = (data, cell) => [data.methods[cell.m], cell.v].filter(Boolean).join(", ");
const at = (comparison, setting) => comparison.cells.filter((cell) => cell.s === setting);
const MOST_ROWS = 14;

function latencyPlot(data, cells, width) {
  const timed = cells.filter((cell) => cell.q).sort((a, b) => a.q[3] - b.q[3]);
  if (!timed.length) return null;
  const numbers = table(["Method", "runs", "least", "5 %", "25 %", "median", "75 %", "95 %", "greatest", "first run", "prepare"],
    timed.map((c) => [nameOf(data, c), String(c.runs), ...c.q.map(seconds), seconds(mean(c.first)), seconds(mean(c.prepare))]), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  const drawn = firstOf(timed, MOST_ROWS, (some) => el("div", {}, rowPlot(
    some.map((cell) => ({ cell, name: nameOf(data, cell), value: seconds(cell.q[3]) })), width, {
      format: seconds, log: true, values: some.flatMap((c) => [c.q[0], c.q[6]]).filter((v) => v > 0),
      label: "Thick: the middle half of the runs; thin: the middle 90 %; marks: the median of each seed.",
      aria: `Latency: ${some.map((c) => `${nameOf(data, c)} ${seconds(c.q[3])}`).join(", ")}`,
      draw(root, { cell }, y, toX) {
        const colour = colourOf(cell.m);
        const bar = (from, to, thick, opacity) => svg("line", { class: `${colour} edge`, x1: toX(from), x2: Math.max(toX(to), toX(from) + 1), y1: y, y2: y, "stroke-width": thick, opacity });
        root.append(bar(cell.q[1], cell.q[5], 3, 0.55), bar(cell.q[2], cell.q[4], 9, 0.4));
        for (const [i, v] of (cell.latency || []).entries()) {
          if (v > 0) root.append(point(cell.m, toX(v), y, { size: 0.75, title: `seed ${cell.seeds[i]}: ${seconds(v)}` }));
        }
        root.append(svg("line", { x1: toX(cell.q[3]), x2: toX(cell.q[3]), y1: y - 8, y2: y + 8, stroke: "var(--ink)", "stroke-width": 1.6 }));
      },
    })));
  const launches = timed.reduce((n, c) => n + (c.launches || 0), 0);
  const runs = timed.reduce((n, c) => n + c.runs, 0);
  return figure("Latency of a run", `${count(runs, "run")}${launches ? ` in ${count(launches, "launch").replace("launchs", "launches")}` : ""}, logarithmic axis`, drawn, numbers);
}

function memoryPlot(data, cells, width) {
  const kinds = [["peak", "above the level before prepare", 9, 0.9], ["run", "of the runs alone", 4, 0.5], ["device", "on the device", 4, 1]];
  const known = cells.filter((c) => kinds.some(([k]) => mean(c[k]) !== null)).sort((a, b) => (mean(a.peak) ?? mean(a.device) ?? 0) - (mean(b.peak) ?? mean(b.device) ?? 0));
  if (!known.length) return null;
  const used = kinds.filter(([k]) => known.some((c) => mean(c[k]) !== null));
  const drawn = firstOf(known, MOST_ROWS, (some) => el("div", {}, rowPlot(
    some.map((cell) => ({ cell, name: nameOf(data, cell), value: bytes(mean(cell.peak) ?? mean(cell.device)) })), width, {
      format: bytes, values: [0, ...some.flatMap((c) => used.map(([k]) => mean(c[k]) ?? 0))],
      label: `Peak memory, mean over seeds. ${used.map(([, text], i) => `${["Thick", "Thin", "Dashed"][kinds.indexOf(used[i])]}: ${text}`).join("; ")}.`,
      aria: `Peak memory: ${some.map((c) => `${nameOf(data, c)} ${bytes(mean(c.peak) ?? mean(c.device))}`).join(", ")}`,
      draw(root, { cell }, y, toX) {
        for (const [k, , thick, opacity] of used) {
          const value = mean(cell[k]);
          if (value === null) continue;
          const down = { peak: -1, run: 6, device: 10 }[k];
          root.append(svg("line", { class: `${colourOf(cell.m)} edge`, x1: toX(0), x2: Math.max(toX(value), toX(0) + 1.5), y1: y + down, y2: y + down, "stroke-width": thick, opacity, "stroke-dasharray": k === "device" ? "4 2" : null },
            svg("title", {}, bytes(value))));
        }
      },
    })));
  const numbers = table(["Method", ...used.map(([, text]) => text)], known.map((c) => [nameOf(data, c), ...used.map(([k]) => bytes(mean(c[k])))]), used.map((_, i) => i + 1));
  return figure("Memory", null, drawn, numbers);
}

// Quality against cost. A point is on the frontier when no other is at least as good in both and better in one.
function frontierPlot(data, cells, width, metric, cost) {
  const points = cells.map((cell) => ({ cell, name: nameOf(data, cell), x: mean(cell[cost.key]), y: mean(cell.metrics?.[metric.name]), ys: cell.metrics?.[metric.name] || [] }))
    .filter((p) => p.x !== null && p.x > 0 && p.y !== null);
  if (points.length < 2) return null;
  const better = metric.better === "lower" ? (a, b) => a < b : (a, b) => a > b;
  const notWorse = (a, b) => a === b || better(a, b);
  for (const p of points) p.front = !points.some((o) => o !== p && o.x <= p.x && notWorse(o.y, p.y) && (o.x < p.x || better(o.y, p.y)));
  const log = Math.max(...points.map((p) => p.x)) / Math.min(...points.map((p) => p.x)) > 4;
  const ys = points.flatMap((p) => [p.y, ...p.ys.filter((v) => v !== null)]);
  const logY = Math.min(...ys) > 0 && Math.max(...ys) / Math.min(...ys) > 50;
  const unit = metric.unit ? ` (${metric.unit})` : "";
  const aria = `${metric.name} against ${cost.label}; on the frontier: ${points.filter((p) => p.front).map((p) => p.name).join(", ")}`;
  const { root, toX, toY, edges } = frame(width, Math.min(340, width * 0.75),
    { values: points.map((p) => p.x), format: cost.format, label: `${cost.label}: lower is better`, log, pad: 0.09 },
    { values: ys, format: (v) => number(v), label: `${metric.name}${unit}: ${metric.better} is better`, log: logY, pad: 0.09 }, aria);
  const front = points.filter((p) => p.front).sort((a, b) => a.x - b.x);
  if (front.length > 1) {
    root.append(svg("path", { class: "front", d: front.map((p, i) => (i ? `H${toX(p.x)}V${toY(p.y)}` : `M${toX(p.x)} ${toY(p.y)}`)).join("") }));
  }
  for (const p of points) {
    const seen = p.ys.filter((v) => v !== null);
    if (seen.length > 1) root.append(svg("line", { class: `${colourOf(p.cell.m)} edge`, x1: toX(p.x), x2: toX(p.x), y1: toY(Math.min(...seen)), y2: toY(Math.max(...seen)), opacity: 0.5 }));
  }
  for (const p of [...points].sort((a, b) => a.front - b.front)) {
    root.append(point(p.cell.m, toX(p.x), toY(p.y), { hollow: !p.front, title: `${p.name}: ${inUnit(p.y, metric.unit)}, ${cost.format(p.x)}` }));
  }
  const taken = points.map((p) => ({ x0: toX(p.x) - 6, x1: toX(p.x) + 6, y0: toY(p.y) - 6, y1: toY(p.y) + 6 }));
  for (const p of front) label(root, p, toX(p.x), toY(p.y), taken, [edges.left, width - 4, edges.top, 1e9]);
  const present = [...new Map(points.map((p) => [p.cell.m, data.methods[p.cell.m]]))].sort((a, b) => a[0] - b[0]);
  const numbers = table(["Method", metric.name, cost.label, "frontier"], points.sort((a, b) => a.x - b.x).map((p) => [p.name, inUnit(p.y, metric.unit), cost.format(p.x), p.front ? "yes" : ""]), [1, 2]);
  return figure(`${metric.name} against ${cost.label}`, "Filled and joined: the Pareto frontier; hollow: another method is at least as good in both", [root, legend(present)], numbers);
}
// A name beside its point where there is room for it; the legend has it anyway.
function label(root, p, x, y, taken, [left, right, top, bottom]) {
  const text = p.name.length > 28 ? `${p.name.slice(0, 27)}…` : p.name;
  const width = textWidth(text);
  const spots = [[x + 9, y + 4], [x - 9 - width, y + 4], [x - width / 2, y - 10], [x - width / 2, y + 19], [x + 9, y - 8], [x + 9, y + 16], [x - 9 - width, y - 8], [x - 9 - width, y + 16]];
  for (const [x0, base] of spots) {
    const box = { x0, x1: x0 + width, y0: base - 10, y1: base + 3 };
    const free = box.x0 >= left && box.x1 <= right && box.y0 >= top && box.y1 <= bottom
      && taken.every((o) => box.x1 < o.x0 || box.x0 > o.x1 || box.y1 < o.y0 || box.y0 > o.y1);
    if (free) {
      taken.push(box);
      root.append(svg("text", { class: "label halo", x: x0, y: base }, text));
      return;
    }
  }
}
