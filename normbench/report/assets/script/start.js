// the theme: as the machine has it, until one chooses
const themeButton = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
const tellTheme = () => { themeButton.textContent = isDark() ? "light" : "dark"; themeButton.setAttribute("aria-label", `show the page ${isDark() ? "light" : "dark"}`); };
const drawAgain = () => { tellTheme(); redraw(); if (!document.getElementById("case").hidden) showPage(); };
const changeTheme = theme => { document.documentElement.dataset.theme = theme; drawAgain(); };
themeButton.addEventListener("click", () => { const theme = isDark() ? "light" : "dark"; remember("theme", theme); changeTheme(theme); });
dark.addEventListener("change", drawAgain);

const drawAll = () => { for (const id of sections.keys()) drawSection(id); };
// what else than the filters an address says, of the sections that stand on the page
const readers = [];
const follow = () => {
  readAddress();
  for (const read of readers) read();
  tellContents();
  document.documentElement.dataset.theme = state.more.get("theme") ?? "";
  tellTheme();
  showFilters();
  redraw();
  showPage();
};
// a section folds by its heading
const foldable = (section, heading) => {
  const fold = button(heading.textContent, () => {
    const folded = section.classList.toggle("folded");
    fold.setAttribute("aria-expanded", !folded);
  }, { class: "fold", "aria-expanded": "true" });
  heading.dataset.short ??= heading.textContent;
  heading.replaceChildren(fold);
};
// what the list of contents leads to is in the address beside the filters
const buildContents = () => {
  const place = document.getElementById("contents");
  for (const section of document.querySelectorAll("#report section[id]")) {
    const heading = section.querySelector("h2");
    if (!heading) continue;
    foldable(section, heading);
    const link = make("a", { "data-section": section.id, href: `#section=${section.id}` }, heading.dataset.short);
    link.addEventListener("click", event => {
      event.preventDefault();
      remember("section", section.id);
      if (section.classList.contains("folded")) heading.firstChild.click();
      goTo(section.id);
      heading.firstChild.focus({ preventScroll: true });
    });
    place.append(make("li", {}, link));
  }
};

readAddress();
if (data.cases.length) {
  addSheets();
  buildFilters();
  addSection("overview", data.cases.some(figureOf), drawOverview);
  addSection("looks", data.cases.some(item => item.look), drawLooks);
  addSection("curves", withCurves.length, drawCurves);
  addSection("maps", data.cases.some(item => item.figures.test_accuracy_percent != null), drawMaps);
  addSection("sizes", data.sizes.length, drawSizes);
  addSection("confusions", data.runs.some(run => run.confusion.length), drawMatrices);
  addSection("gallery", data.galleries.length, drawGallery);
  addSection("activations", withActivations.length, drawActivations);
  addSection("weights", withWeights.length, drawWeights);
  addSection("history", data.history.cases.length, drawHistory);
  addSection("sessions", several, drawSessions);
  addSection("cases", true, drawTable);
  for (const [id, build, read] of [["maps", buildMaps, readMaps], ["sessions", buildSessions, readSessions], ["curves", buildCurves, readCurves], ["cases", buildTable, readTable]])
    if (document.getElementById(id)) { build(); readers.push(read); }
  buildActivations();
  buildHistory();
  // what is gone to stands below the bar, however high that is
  new ResizeObserver(belowBar).observe(document.getElementById("filters"));
}
buildContents();
tellTheme();
if (data.cases.length) follow();
if (state.more.get("section")) {
  // once the bar has its height; and the browser is not to go back to where one was before
  history.scrollRestoration = "manual";
  requestAnimationFrame(() => goTo(state.more.get("section")));
}
addEventListener("popstate", () => { if (data.cases.length) follow(); });
// on paper all is drawn, in the light, as wide as a sheet
const printed = on => {
  const root = document.documentElement;
  root.classList.toggle("printed", on);
  root.dataset.theme = on ? "light" : state.more.get("theme") ?? "";
  table.limit = on ? Infinity : 50;
  historyLimit = on ? Infinity : 24;
  drawAgain();
  if (on) drawAll();
  for (const chart of drawn.values()) chart.resize();
};
addEventListener("beforeprint", () => printed(true));
addEventListener("afterprint", () => printed(false));
