// The table of claims: filter, sort, and as many rows as are looked at.

const AT_ONCE = 40;
const FIRST = 6;
const NOTHING = Symbol("nothing was measured");
const SORTS = {
  paper: ["Paper", (c) => c.at],
  claim: ["Claim", (c) => c.id],
  family: ["Family", (c) => core.papers[c.paper].family],
  profile: ["Profile", (c) => core.profiles.indexOf(c.profile)],
  verdict: ["Verdict", (c) => c.outcome],
  ratio: ["Measured ÷ claimed", (c) => (c.ratio ? c.ratio[0] : Infinity)],
};
const claims = core.claims.map((c, at) => {
  const p = core.papers[c.paper];
  const text = [p.slug, p.title, p.family, c.id, c.statement, c.claimed, c.source, c.setting, c.reason, c.profile, ...(p.authors || [])];
  return { ...c, at, text: text.filter(Boolean).join("\n").toLowerCase() };
});
const filter = { q: "", paper: "", family: "", profile: "", verdict: "", sort: "", order: "" };
let matching = claims;
let rowsShown = AT_ONCE;
const opened = new Set();

function matches(c, but) {
  const p = core.papers[c.paper];
  return (!filter.paper || p.slug === filter.paper) && (!filter.family || p.family === filter.family)
    && (!filter.profile || c.profile === filter.profile)
    && (but === "verdict" || !filter.verdict || filter.verdict.split(",").includes(core.outcomes[c.outcome]))
    && filter.words.every((word) => c.text.includes(word));
}
function update({ follow = true, keep = false } = {}) {
  filter.words = filter.q.toLowerCase().split(/\s+/).filter(Boolean);
  if (!keep) { rowsShown = AT_ONCE; opened.clear(); }
  const counts = core.outcomes.map(() => 0);
  matching = [];
  for (const c of claims) {
    if (!matches(c, "verdict")) continue;
    counts[c.outcome] += 1;
    if (matches(c)) matching.push(c);
  }
  const value = (SORTS[filter.sort] || SORTS.paper)[1];
  const sign = filter.order === "down" ? -1 : 1;
  matching.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    return (x < y ? -sign : x > y ? sign : 0) || a.at - b.at;
  });
  drawRows();
  drawControls(counts);
  if (follow) address.follow(address.claims(filter));
}
// The rows that a screen shows stand at once, so that a filter answers while its reader types; the rest follows in turns.
let rest = [];
let pending = 0;
function drawRows() {
  const visible = matching.slice(0, rowsShown);
  byId("rows").replaceChildren(...visible.slice(0, FIRST).flatMap(rowsOf));
  rest = visible.slice(FIRST);
  clearTimeout(pending);
  pending = setTimeout(drawRest, 30, FIRST);
  const more = byId("more");
  const left = matching.length - visible.length;
  more.hidden = left <= 0;
  more.textContent = `Show ${Math.min(left, AT_ONCE * 5)} more of ${left.toLocaleString("en")}`;
  byId("found").textContent = matching.length === claims.length ? count(claims.length, "claim") : `${matching.length.toLocaleString("en")} of ${count(claims.length, "claim")}`;
  if (!matching.length) {
    byId("rows").append(el("tr", { role: "row" }, el("td", { role: "cell", colspan: 5 }, "No claim matches. Loosen the filter or show all claims.")));
  }
}
function drawRest(most = Infinity) {
  clearTimeout(pending);
  byId("rows").append(...rest.splice(0, most).flatMap(rowsOf));
  if (rest.length) pending = setTimeout(drawRest, 0, most);
}
function rowsOf(c) {
  const isOpen = opened.has(c.at);
  return isOpen ? [claimRow(c, true), detailRow(c)] : [claimRow(c, false)];
}

function claimRow(c, isOpen) {
  const p = core.papers[c.paper];
  const cell = (name, ...inside) => el("td", { role: "cell", "data-name": name, class: inside[0] === NOTHING ? "nothing" : null }, inside[0] === NOTHING ? el("span", { class: "dim" }, "–") : inside);
  const toggle = el("button", { type: "button", class: "quiet", "aria-expanded": String(isOpen), "aria-label": `Details of ${c.id}`, onclick: () => toggleClaim(c) }, isOpen ? "Hide details" : "Details");
  const ratio = c.ratio ? strip(c) : !c.figure ? NOTHING : el("span", { class: "under dim" }, `no ratio: ${c.why_no_ratio}`);
  const several = core.profiles.length > 1;
  return el("tr", { role: "row", class: `claim${isOpen ? " open" : ""}`, id: rowId(c) },
    cell(null,
      el("div", {}, c.statement),
      el("div", { class: "meta" }, el("a", { href: address.paper(p.slug) }, p.slug), ` · ${c.id} · ${c.source}`),
      el("div", { class: "acts" }, toggle, el("a", { href: address.claim(c), "aria-label": `Link to ${c.id}` }, "Link"))),
    cell("The paper's figure", el("div", { class: "figure" }, c.claimed), el("div", { class: "under" }, c.setting)),
    cell("Measured", c.figure
      ? [el("div", { class: "figure" }, measurement(c.figure)), el("div", { class: "under" }, [c.basis, c.rule === "consistent" ? "scaled setting" : "paper's setting"].filter(Boolean).join(", ")),
        c.here ? el("div", { class: "under" }, cut(c.here, 90)) : null]
      : NOTHING),
    cell("Measured ÷ claimed", ratio),
    cell("Verdict", verdictWord(c.outcome), several ? el("span", { class: "dim" }, ` ${c.profile}`) : null, el("div", { class: "under" }, c.reason)));
}
const cut = (text, length) => (text.length > length ? `${text.slice(0, length).replace(/,[^,]*$/, "")}, …` : text);
const rowId = (c) => `claim-${c.at}`;

function detailRow(c) {
  const inside = el("div", { class: "inside" }, el("p", { class: "dim" }, "Unpacking …"));
  details(c).then((nodes) => inside.replaceChildren(...nodes), (error) => inside.replaceChildren(el("p", {}, error.message)));
  return el("tr", { role: "row", class: "detail" }, el("td", { role: "cell", colspan: 5 }, inside));
}
function toggleClaim(c, open = !opened.has(c.at)) {
  if (open) opened.add(c.at); else opened.delete(c.at);
  const row = byId(rowId(c));
  if (!row) return;
  if (row.nextElementSibling?.classList.contains("detail")) row.nextElementSibling.remove();
  const hadFocus = row.contains(document.activeElement);
  const fresh = rowsOf(c);
  row.replaceWith(...fresh);
  if (hadFocus) fresh[0].querySelector("button").focus();
}

// Controls

function options(select, all, values) {
  select.replaceChildren(...(all ? [el("option", { value: "" }, all)] : []), ...values.map(([value, text]) => el("option", { value }, text)));
}
function setUpControls() {
  options(byId("paper"), "All papers", core.papers.map((p) => [p.slug, p.slug]).sort((a, b) => (a[0] < b[0] ? -1 : 1)));
  options(byId("family"), "All families", [...new Set(core.papers.map((p) => p.family))].map((f) => [f, f]));
  options(byId("profile"), "All profiles", core.profiles.map((p) => [p, p]));
  options(byId("sort"), null, Object.entries(SORTS).map(([key, [text]]) => [key, text]));
  for (const name of ["paper", "family", "profile", "sort"]) {
    byId(name).addEventListener("change", (event) => { filter[name] = event.target.value; if (name === "sort") filter.order = ""; update(); });
  }
  byId("q").addEventListener("input", (event) => { filter.q = event.target.value; update(); });
  byId("direction").addEventListener("click", () => { filter.order = filter.order === "down" ? "" : "down"; update(); });
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("filter").addEventListener("reset", (event) => { event.preventDefault(); setFilter({}); });
  for (const [i, name] of core.outcomes.entries()) {
    byId("filter").querySelector(".chips").append(el("button", { type: "button", class: outcomeClass(i), "data-verdict": name, onclick: () => toggleVerdict(name) },
      mark(i), name, el("span", { class: "count" })));
  }
  for (const head of document.querySelectorAll(".claims th[data-sort]")) {
    const key = head.dataset.sort;
    head.dataset.label = head.textContent;
    head.replaceChildren(el("button", { type: "button", onclick: () => sortBy(key) }, head.textContent));
    if (key === "ratio") head.append(stripAxis());
  }
  byId("more").addEventListener("click", () => {
    const first = matching[rowsShown];
    rowsShown += AT_ONCE * 5;
    drawRows();
    drawRest();
    byId(rowId(first))?.querySelector("button").focus();
  });
  byId("reading").textContent = "The strip is logarithmic: the line at 1× is the paper's figure, the mark what was measured, the bar its 95 % interval; the shaded part is where the rule, fixed beforehand, holds. The two settings often differ; each stands under its figure.";
  // What is printed is all that matches, not the part that was scrolled to.
  let before = rowsShown;
  addEventListener("beforeprint", () => { before = rowsShown; rowsShown = matching.length; drawRows(); drawRest(); });
  addEventListener("afterprint", () => { rowsShown = before; drawRows(); });
}
function sortBy(key) {
  const same = (filter.sort || "paper") === key;
  filter.order = same && filter.order !== "down" ? "down" : "";
  filter.sort = key;
  update();
}
function toggleVerdict(name) {
  const chosen = new Set(filter.verdict ? filter.verdict.split(",") : []);
  if (!chosen.delete(name)) chosen.add(name);
  filter.verdict = core.outcomes.filter((o) => chosen.has(o)).join(",");
  update();
}
function setFilter(values, how) {
  for (const name of FILTERS) filter[name] = values[name] || "";
  update(how);
}
function drawControls(counts) {
  for (const name of ["q", "paper", "family", "profile"]) if (byId(name).value !== filter[name]) byId(name).value = filter[name];
  byId("sort").value = filter.sort || "paper";
  const down = filter.order === "down";
  byId("direction").textContent = down ? "↓" : "↑";
  byId("direction").setAttribute("aria-label", down ? "Descending; sort ascending" : "Ascending; sort descending");
  const chosen = filter.verdict ? filter.verdict.split(",") : [];
  for (const [i, button] of byId("filter").querySelectorAll("[data-verdict]").entries()) {
    button.setAttribute("aria-pressed", String(chosen.includes(button.dataset.verdict)));
    button.querySelector(".count").textContent = counts[i].toLocaleString("en");
  }
  for (const head of document.querySelectorAll(".claims th[data-sort]")) {
    if (head.dataset.sort === (filter.sort || "paper")) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  byId("reset").hidden = matching.length === claims.length && !filter.q;
}
