// The papers: a heading each, and what is behind its claims once it is opened.

const open = new Map(); // slug -> {body, data, chosen}

function setUpPapers() {
  const list = byId("paper-list");
  let family = null;
  for (const [i, p] of core.papers.entries()) {
    if (p.family !== family) { family = p.family; list.append(el("h3", { class: "family" }, family)); }
    const button = el("button", { type: "button", "aria-expanded": "false", "aria-controls": `paper-body-${i}`, onclick: () => togglePaper(i) },
      el("span", { class: "turn", "aria-hidden": "true" }, "▶"), el("span", { class: "title" }, p.title), shares(i),
      el("span", { class: "slug" }, [p.slug, p.year, p.records ? count(p.records, "record") : "no records"].join(" · ")));
    list.append(el("div", { class: "entry", id: `paper-${i}` }, el("h4", {}, button), el("div", { class: "body", id: `paper-body-${i}`, hidden: true })));
  }
}
function tally(i) {
  const counts = core.outcomes.map(() => 0);
  for (const c of core.claims) if (c.paper === i) counts[c.outcome] += 1;
  return counts;
}
function shares(i) {
  const counts = tally(i);
  const all = counts.reduce((a, b) => a + b, 0);
  let x = 0;
  const bar = svg("svg", { class: "share", viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": core.outcomes.map((o, k) => (counts[k] ? `${counts[k]} ${o}` : "")).filter(Boolean).join(", ") });
  counts.forEach((n, k) => {
    if (n) bar.append(svg("rect", { class: `fill-${outcomeClass(k)}`, x, y: 0, width: 100 * n / all, height: 6 }));
    x += 100 * n / all;
  });
  return bar;
}
async function togglePaper(i, wanted) {
  const button = byId(`paper-${i}`).querySelector("button");
  const body = byId(`paper-body-${i}`);
  const show = wanted ?? body.hidden;
  body.hidden = !show;
  button.setAttribute("aria-expanded", String(show));
  if (!show) { open.delete(i); return; }
  if (open.has(i)) return;
  open.set(i, { comparison: null, setting: null, metric: {}, width: 0 });
  body.replaceChildren(el("p", { class: "dim" }, "Unpacking …"));
  try {
    open.get(i).data = await chunk(core.papers[i].slug);
  } catch (error) {
    body.replaceChildren(el("p", { class: "note" }, error.message));
    return;
  }
  drawPaper(i);
}
async function openPaper(slug, comparison, profile) {
  const i = core.papers.findIndex((p) => p.slug === slug);
  if (i < 0) return null;
  await togglePaper(i, true);
  const state = open.get(i);
  if (comparison && state?.data) {
    const found = state.data.comparisons.findIndex((c) => c.name === comparison && (!profile || c.profile === profile));
    if (found >= 0) { Object.assign(state, { comparison: found, setting: null }); drawPaper(i); }
  }
  return byId(`paper-${i}`);
}

function drawPaper(i) {
  const state = open.get(i);
  const p = core.papers[i];
  const body = byId(`paper-body-${i}`);
  const counts = tally(i);
  const links = [p.arxiv && outward(`https://arxiv.org/abs/${encodeURIComponent(p.arxiv)}`, `arXiv ${p.arxiv}`), p.doi && outward(`https://doi.org/${p.doi}`, `doi ${p.doi}`),
    p.url && !(p.arxiv && p.url.includes("arxiv.org")) && outward(p.url, "the paper"), p.code && outward(p.code, "the authors' code")].filter(Boolean);
  body.replaceChildren(el("div", { class: "about" },
    el("p", { class: "dim" }, [(p.authors || []).join(", "), p.venue || p.year].filter(Boolean).join(". ")),
    el("p", {}, p.summary),
    links.length ? el("p", {}, links.flatMap((link, k) => [k ? " · " : "", link])) : null,
    el("p", {}, "Claims: ", counts.flatMap((n, k) => (n ? [el("a", { href: address.claims({ paper: p.slug, verdict: core.outcomes[k] }) }, `${n} ${core.outcomes[k]}`), ", "] : [])).slice(0, -1),
      " · ", el("a", { href: address.claims({ paper: p.slug }) }, "all")),
    p.notes ? el("details", {}, el("summary", {}, `Notes on how it was measured (${p.notes.length})`), el("ul", {}, p.notes.map((n) => el("li", {}, n)))) : null));
  if (!state.data.comparisons.length) {
    body.append(el("p", { class: "absent" }, "Nothing of this paper was measured yet. Its claims say what it would take."));
    return;
  }
  const panel = el("div", {});
  body.append(el("div", { class: "choose" }), panel);
  drawComparison(i, panel);
}
const measured = (comparison) => comparison.cells.reduce((n, cell) => n + cell.seeds.length, 0);
function chooser(text, values, chosen, change) {
  const id = `choose-${chooser.next = (chooser.next || 0) + 1}`;
  const select = el("select", { id, onchange: (event) => change(Number(event.target.value), id) }, values.map((v, k) => el("option", { value: k, selected: k === chosen }, v)));
  return el("div", { class: "field" }, el("label", { for: id, class: "dim" }, text), select);
}
function drawComparison(i, panel) {
  const state = open.get(i);
  const { data } = state;
  // Opened without a wish, a paper shows the comparison that most was measured in.
  state.comparison ??= data.comparisons.reduce((best, c, k) => (measured(c) > measured(data.comparisons[best]) ? k : best), 0);
  const comparison = data.comparisons[state.comparison];
  // The last setting is the largest work, which tells methods apart best.
  if (state.setting === null) state.setting = comparison.settings.length - 1;
  const redraw = (change) => {
    Object.assign(state, change);
    const which = [...panel.parentElement.querySelectorAll(".choose select")].indexOf(document.activeElement);
    drawComparison(i, panel);
    panel.parentElement.querySelectorAll(".choose select")[which]?.focus();
  };
  const choices = [];
  if (data.comparisons.length > 1) {
    choices.push(chooser("Comparison", data.comparisons.map((c) => (core.profiles.length > 1 ? `${c.name} (${c.profile})` : c.name)), state.comparison, (k) => redraw({ comparison: k, setting: null })));
  }
  if (comparison.settings.length > 1) choices.push(chooser("Setting", comparison.settings.map(parameters), state.setting, (k) => redraw({ setting: k })));
  panel.parentElement.querySelector(".choose").replaceChildren(...choices);
  const cells = at(comparison, state.setting);
  state.width = panel.clientWidth;
  const width = Math.max(280, Math.min(560, panel.clientWidth >= 870 ? (panel.clientWidth - 38) / 2 : panel.clientWidth));
  const plots = [latencyPlot(data, cells, width), memoryPlot(data, cells, width), ...frontiers(state, comparison, cells, width),
    ...Object.keys(comparison.growth).map((name) => growthPlot(data, comparison, name, width)),
    ...comparison.series.map((s) => seriesPlot(data, s, state.setting, width))].filter(Boolean);
  panel.replaceChildren(
    el("p", { class: "dim" }, `${comparison.name}: the task ${comparison.task} on ${comparison.profile}${comparison.emulated ? " (emulated)" : ""}${Object.keys(comparison.fixed).length ? ` with ${parameters(comparison.fixed)}` : ""}. Suite ${comparison.suites.join(", ")}.`),
    plots.length ? el("div", { class: "plots" }, plots) : el("p", { class: "absent" }, "No method of this setting came through, so there is nothing to draw; the records say why."),
    ...[missingPlots(comparison, cells)].filter(Boolean),
    recordsOf(data, comparison));
}
function frontiers(state, comparison, cells, width) {
  const metrics = comparison.metrics.filter((m) => m.better !== "neither" && cells.filter((c) => mean(c.metrics?.[m.name]) !== null).length > 1);
  if (!metrics.length) return [];
  const costs = [{ key: "latency", label: "latency", format: seconds }, { key: "peak", label: "peak memory", format: bytes }, { key: "device", label: "device memory", format: bytes }];
  return costs.map((cost) => {
    const holder = el("div", {});
    const draw = (k) => {
      const drawn = frontierPlot(state.data, cells, width, metrics[k], cost);
      if (!drawn) return false;
      if (metrics.length > 1) drawn.querySelector("figcaption").after(chooser("Quality", metrics.map((m) => (m.doc ? `${m.name}: ${cut(m.doc, 50)}` : m.name)), k, (n, id) => { draw(n); holder.querySelector("select").focus(); }));
      holder.replaceChildren(drawn);
      return true;
    };
    return draw(0) ? holder : null;
  });
}
function missingPlots(comparison, cells) {
  const absent = [
    !cells.some((c) => c.q) && "latency was not recorded",
    !Object.keys(comparison.growth).length && "no size was varied over three or more values",
    !comparison.series.length && "no series were recorded",
  ].filter(Boolean);
  return absent.length ? el("p", { class: "absent" }, `Not drawn: ${absent.join("; ")}.`) : null;
}
function recordsOf(data, comparison) {
  const records = comparison.cells.flatMap((cell) => cell.seeds.map((_, k) => [comparison, cell, k]));
  const trouble = records.filter(([, cell, k]) => (cell.status && cell.status[k] !== "ok") || cell.unstable?.[k]).length;
  const holder = el("details", { class: "numbers" }, el("summary", {}, `${count(records.length, "record")}${trouble ? `, ${trouble} with trouble` : ""}`));
  holder.addEventListener("toggle", () => {
    if (holder.open && holder.children.length === 1) holder.append(firstOf(records, 60, (some) => recordTable(some, data.methods)));
  });
  return holder;
}
