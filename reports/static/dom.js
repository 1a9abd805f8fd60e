// Building blocks: elements, numbers for people, and the data inside the page.
// Text reaches the document as text nodes and attributes alone; nothing is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const byId = (id) => document.getElementById(id);

const core = JSON.parse(byId("core").textContent);

// A paper's chunk is unpacked when it is first looked at, and kept.
const unpacked = new Map();
const everythingThere = document.readyState === "loading"
  ? new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true })) : Promise.resolve();

function chunk(slug) {
  if (!unpacked.has(slug)) unpacked.set(slug, unpack(slug));
  return unpacked.get(slug);
}
async function unpack(slug) {
  await everythingThere;
  if (typeof DecompressionStream === "undefined") {
    throw new Error("This browser is too old to unpack what is behind a claim; one from 2023 or later can.");
  }
  const bytes = Uint8Array.from(atob(byId(`chunk-${slug}`).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// Numbers

const trimmed = (value, digits) => String(Number(value.toPrecision(digits)));
function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) {
    const [mantissa, exponent] = value.toExponential(2).split("e");
    return `${Number(mantissa)}e${Number(exponent)}`;
  }
  return size >= 1e4 ? Math.round(value).toLocaleString("en") : trimmed(value, digits);
}
function seconds(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0 s";
  for (const [unit, scale] of [["ns", 1e-9], ["µs", 1e-6], ["ms", 1e-3]]) {
    if (size < scale * 999.5) return `${trimmed(value / scale, 3)} ${unit}`;
  }
  return size < 600 ? `${trimmed(value, 3)} s` : size < 7200 ? `${trimmed(value / 60, 3)} min` : `${trimmed(value / 3600, 3)} h`;
}
function bytes(value) {
  if (value === null || value === undefined) return "–";
  let unit = 0;
  let scaled = value;
  while (Math.abs(scaled) >= 1000 && unit < 4) { scaled /= 1024; unit += 1; }
  return `${trimmed(scaled, 3)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}
const inUnit = (value, unit) => (unit === "s" ? seconds(value) : unit === "B" ? bytes(value) : `${number(value)}${unit ? ` ${unit}` : ""}`);
// A measured quantity with its interval, where it has one, in the decimal units that papers state their figures in.
function measurement(figure) {
  const [value, low, high] = figure.is;
  let [unit, size] = [figure.unit || "", 1];
  const steps = { B: [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]], s: [["s", 1], ["ms", 1e-3], ["µs", 1e-6], ["ns", 1e-9]] }[unit];
  if (steps && value !== null) [unit, size] = steps.find(([, s]) => Math.abs(value) >= s) || [unit, 1];
  const shownAs = (v) => number(v / size);
  const range = low === null || shownAs(low) === shownAs(high) ? "" : ` [${shownAs(low)}, ${shownAs(high)}]`;
  return `${shownAs(value)}${unit === "x" ? "×" : ""}${range}${unit && unit !== "x" ? ` ${unit}` : ""}`;
}
const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
const outcomeClass = (outcome) => core.outcomes[outcome].replace(" ", "-");
const mean = (values) => { const there = (values || []).filter((v) => v !== null); return there.length ? there.reduce((a, b) => a + b, 0) / there.length : null; };
const parameters = (setting) => Object.entries(setting).filter(([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length)).map(([name, value]) => `${name}=${shown(value)}`).join(", ");
const shown = (value) => (Array.isArray(value) ? value.map(shown).join(" ") : typeof value === "number" ? number(value, 6) : String(value));

function mark(outcome) {
  return svg("svg", { class: "mark", viewBox: "-8 -8 16 16", "aria-hidden": "true" }, svg("use", { href: `#mark-${outcomeClass(outcome)}` }));
}
function verdictWord(outcome) {
  return el("span", { class: `verdict ${outcomeClass(outcome)}` }, mark(outcome), core.outcomes[outcome]);
}

// A link from a paper.yaml leads to the web or nowhere; it is followed only when someone clicks.
function outward(address, text) {
  return /^https?:\/\//i.test(address) ? el("a", { href: address, rel: "noopener noreferrer" }, text) : el("span", {}, text);
}
const table = (heads, rows, numeric = []) => el("table", {},
  el("thead", {}, el("tr", {}, heads.map((h, i) => el("th", { scope: "col", class: numeric.includes(i) ? "n" : null }, h)))),
  el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((c, i) => el("td", { class: numeric.includes(i) ? "n" : null }, c))))));

// The first `most` of many, and a button for the rest.
function firstOf(items, most, draw) {
  const holder = el("div", {});
  const show = (all) => {
    holder.replaceChildren(draw(all ? items : items.slice(0, most)));
    if (!all && items.length > most) {
      holder.append(el("button", { type: "button", class: "quiet", onclick: () => show(true) }, `Show all ${items.length}`));
    }
  };
  show(false);
  return holder;
}
