// Start, and follow the address.

async function follow() {
  const to = address.read(location.hash);
  document.querySelector(".claim.target")?.classList.remove("target");
  if (to.view === "claims") {
    setFilter(to.filter, { follow: false });
    arrive(byId("claims"));
  } else if (to.view === "claim") {
    const [slug, id, profile] = to.rest;
    const c = claims.find((k) => core.papers[k.paper].slug === slug && k.id === id && (!profile || k.profile === profile));
    if (!c) { setFilter({ q: id || "" }, { follow: false }); arrive(byId("claims")); return; }
    if (!matching.slice(0, rowsShown).includes(c)) {
      setFilter({ paper: slug }, { follow: false });
      rowsShown = Math.max(rowsShown, matching.indexOf(c) + 1);
      drawRows();
    }
    drawRest();
    toggleClaim(c, true);
    const row = byId(rowId(c));
    row.classList.add("target");
    arrive(row, row.querySelector("button"));
  } else if (to.view === "paper") {
    const entry = await openPaper(...to.rest);
    if (entry) arrive(entry, entry.querySelector("button"));
  }
}
function arrive(node, focus = node) {
  drawRest(); // what is drawn later would move the place that is gone to
  focus.focus({ preventScroll: true });
  node.scrollIntoView({ block: "start" });
}

function setUpTheme() {
  const button = byId("theme");
  const names = ["auto", "light", "dark"];
  let stored = "auto";
  // A browser may refuse storage to files; the choice then lasts as long as the page.
  try { stored = localStorage.getItem("harness-theme") || "auto"; } catch { stored = "auto"; }
  const apply = (name) => {
    if (name === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
    button.replaceChildren(el("span", { class: "word" }, "Theme: "), name);
    stored = name;
  };
  button.addEventListener("click", () => {
    apply(names[(names.indexOf(stored) + 1) % names.length]);
    try { localStorage.setItem("harness-theme", stored); } catch { /* as above */ }
  });
  apply(names.includes(stored) ? stored : "auto");
  button.hidden = false;
}

let resizing = 0;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => {
    for (const [i, state] of open) {
      const panel = byId(`paper-body-${i}`).querySelector(".choose + div");
      if (panel && state.data && Math.abs(panel.clientWidth - state.width) > 4) drawComparison(i, panel);
    }
  }, 150);
});
setUpTheme();
setUpControls();
setUpPapers();
update({ follow: false });
drawRest();
addEventListener("hashchange", follow);
follow();
