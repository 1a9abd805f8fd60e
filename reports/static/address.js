// What the page shows, as its address: everything after the # can be shared.
//   #claims?verdict=contradicted&family=training&q=memory&sort=ratio    a state of the filter
//   #claim/lion/lion-state-memory/cpu                                   a claim, opened
//   #paper/lion/step-time/cpu                                           a paper, opened at a comparison

const FILTERS = ["q", "paper", "family", "profile", "verdict", "sort", "order"];
const address = {
  claim: (c) => `#claim/${[core.papers[c.paper].slug, c.id, c.profile].map(encodeURIComponent).join("/")}`,
  paper: (slug, ...more) => `#paper/${[slug, ...more].map(encodeURIComponent).join("/")}`,
  claims(filter) {
    const query = new URLSearchParams();
    for (const name of FILTERS) if (filter[name]) query.set(name, filter[name]);
    return `#claims?${query}`.replaceAll("+", "%20");
  },
  read(hash) {
    const text = hash.replace(/^#/, "");
    if (text.startsWith("claims?")) {
      const query = new URLSearchParams(text.slice("claims?".length));
      return { view: "claims", filter: Object.fromEntries(FILTERS.map((name) => [name, query.get(name) || ""])) };
    }
    const [view, ...rest] = text.split("/").map(decoded);
    return view === "claim" || view === "paper" ? { view, rest } : { view: "place", id: text };
  },
  // The address bar follows the filter without a new entry in the history for every letter typed.
  follow(hash) { history.replaceState(null, "", hash); },
};
function decoded(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}
