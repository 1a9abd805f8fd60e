// What is behind a claim: both settings, rules, conditions, controls and the records.

async function details(c) {
  const p = core.papers[c.paper];
  const data = await chunk(p.slug);
  const d = data.claims[`${c.id}/${c.profile}`];
  const facts = [
    ["Compared", d.compared],
    ["The paper's setting", c.setting],
    ["Measured in", c.here && `${c.here} (${c.profile})`],
    ["Rests on", c.basis],
    ["Not measured", c.outcome === core.outcomes.length - 1 ? c.reason : null],
    ["To measure it", c.how && el("code", {}, c.how)],
    ["Note", d.note],
  ].filter(([, value]) => value);
  const nodes = [el("dl", { class: "facts" }, facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]))];
  for (const rule of d.rules || []) {
    const which = rule.kind === "reproduced" ? "Rule in the paper's own setting" : "Rule in a scaled setting";
    const decides = c.rule === rule.kind ? ", which decided" : "";
    nodes.push(el("h4", {}, `${which}${decides}`),
      table(["Quantity", "must be", "on"], rule.conditions.map((k) => [el("code", {}, k.quantity), k.bounds, k.on])),
      el("p", { class: "dim" }, `Decided on ${rule.profiles.join(", ")}${rule.conditions.length > 1 ? `; contradicted when ${rule.any ? "any" : "every one"} of its conditions is` : ""}.`));
  }
  if (d.conditions) {
    nodes.push(el("h4", {}, "What was measured"),
      table(["Quantity", "measured", "must be", "outcome"], d.conditions.map((k) => [el("code", {}, k.quantity), measurement(k.measured), k.bounds, k.why ? `${k.outcome}: ${k.why}` : k.outcome])));
  }
  if (d.controls) nodes.push(el("h4", {}, "Beside it, deciding nothing"), table(["Quantity", "measured"], d.controls.map(([name, value]) => [name, typeof value === "string" ? value : measurement(value)])));
  if (d.records) nodes.push(...recordsBehind(p, data, d));
  return nodes;
}

function recordsBehind(p, data, d) {
  const comparisons = [...new Set(d.records.map(([i]) => i))].map((i) => data.comparisons[i]);
  const where = comparisons.flatMap((k, i) => [i ? ", " : "", el("a", { href: address.paper(p.slug, k.name, k.profile) }, k.name)]);
  const more = d.elsewhere ? ` ${count(d.elsewhere, "record")} of other papers also count.` : "";
  return [
    el("h4", {}, `${count(d.records.length, "record")} behind it`),
    el("p", {}, "Plots: ", where, `.${more}`),
    firstOf(d.records, 12, (some) => recordTable(some.map(([i, j, k]) => [data.comparisons[i], data.comparisons[i].cells[j], k]), data.methods)),
  ];
}

// Records as rows: [comparison, cell, position among its seeds].
function recordTable(records, methods) {
  const metrics = [...new Set(records.flatMap(([, cell]) => Object.keys(cell.metrics || {})))].slice(0, 6);
  const unit = (comparison, name) => comparison.metrics.find((m) => m.name === name)?.unit || "";
  const rows = records.map(([comparison, cell, k]) => [
    methods[cell.m] + (cell.method ? ` (${cell.method})` : ""),
    [parameters(comparison.settings[cell.s] || {}), cell.v].filter(Boolean).join(", "),
    String(cell.seeds[k]),
    seconds(cell.latency?.[k]),
    bytes(cell.peak?.[k]),
    ...metrics.map((name) => (cell.metrics?.[name] ? inUnit(cell.metrics[name][k], unit(comparison, name)) : "–")),
    cell.unstable?.[k] ? `ok, disturbed: ${cell.unstable[k]}` : cell.status?.[k] && cell.status[k] !== "ok" ? `${cell.status[k]}: ${cell.reason[k]}` : "ok",
    el("code", {}, cell.keys[k]),
  ]);
  return el("div", { class: "scroll", role: "region", "aria-label": "Records", tabindex: "0" },
    table(["Method", "Setting", "Seed", "Latency", "Peak memory", ...metrics, "Status", "Record"], rows, [2, 3, 4, ...metrics.map((_, i) => 5 + i)]));
}
