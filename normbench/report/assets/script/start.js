// the theme: as the machine has it, until one chooses
const themeButton = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
const tellTheme = () => { themeButton.textContent = isDark() ? "light" : "dark"; themeButton.setAttribute("aria-label", `show the page ${isDark() ? "light" : "dark"}`); };
const changeTheme = theme => { document.documentElement.dataset.theme = theme; tellTheme(); redraw(); if (!document.getElementById("case").hidden) showPage(); };
themeButton.addEventListener("click", () => { const theme = isDark() ? "light" : "dark"; remember("theme", theme); changeTheme(theme); });
dark.addEventListener("change", () => { tellTheme(); redraw(); });

const drawAll = () => { for (const id of sections.keys()) drawSection(id); };
const follow = () => {
  readAddress();
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
    const link = make("a", { href: `#section=${section.id}` }, heading.dataset.short);
    link.addEventListener("click", event => {
      event.preventDefault();
      remember("section", section.id);
      if (section.classList.contains("folded")) heading.firstChild.click();
      section.scrollIntoView();
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
  if (document.getElementById("maps")) buildMaps();
  if (document.getElementById("sessions")) buildSessions();
  buildActivations();
  buildHistory();
  buildTable();
  for (const box of document.querySelectorAll("#curves input")) box.addEventListener("change", () => { remember(box.name, box.checked ? "1" : ""); drawCurves(); });
  for (const box of document.querySelectorAll("#curves input")) box.checked = state.more.get(box.name) === "1";
}
buildContents();
tellTheme();
if (data.cases.length) follow();
if (state.more.get("section")) document.getElementById(state.more.get("section"))?.scrollIntoView();
addEventListener("popstate", () => { if (data.cases.length) follow(); });
addEventListener("beforeprint", () => { table.limit = Infinity; historyLimit = Infinity; redraw(); drawAll(); });
