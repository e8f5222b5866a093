// confusion matrices of the norms chosen, and how each differs from the first; a cell opens its images
const perRun = run => run.confusion.map(row => row.map(value => value / run.seeds));
const wrongOf = cells => sum(cells.map((row, t) => sum(row) - row[t]));
// ``other`` is what the run is held against, where cells are differences
const matrix = (run, title, cells, names, other = null) => {
  const differs = other !== null;
  const largest = Math.max(...cells.flatMap((row, t) => row.filter((_, p) => p !== t).map(Math.abs)), 1e-9);
  const digits = cells.flat().every(Number.isInteger) ? 0 : largest < 100 ? 1 : 0;
  const show = value => !value ? "" : differs ? signed(value, digits) : value.toFixed(digits);
  const cell = (value, t, p) => {
    if (p === t) return make("td", { class: "right", "aria-label": "right" });
    if (!value) return make("td");
    const share = `--share:${(100 * Math.abs(value) / largest).toFixed(0)}%`;
    return make("td", { style: share, class: differs ? value > 0 ? "more" : "fewer" : "" }, button(show(value), () => openCell(differs ? [run, other] : [run], t, p), { "aria-label": `${names[t]} taken for ${names[p]}: ${show(value)}` }));
  };
  const head = make("tr", {}, make("td"), ...cells.map((_, p) => make("th", { scope: "col", class: names[p].length > 1 ? "upright" : null }, names[p])));
  const rows = cells.map((row, t) => make("tr", {}, make("th", { scope: "row" }, names[t]), ...row.map((value, p) => cell(value, t, p))));
  return scrolled(title, make("table", {}, make("caption", {}, title), make("thead", {}, head), make("tbody", {}, ...rows)));
};
const cellImages = (run, t, p) => {
  const names = data.classes[run.dataset], group = data.galleries.find(one => [...PANEL, "session"].every(name => one[name] === run[name]));
  const images = group?.lines.find(one => one.line === run.line)?.images ?? [], found = images.filter(([, truth, taken]) => truth === t && taken === p);
  const few = `None of them is among the ${images.length} pictures that the session kept of ${run.line}: the most confident mistakes of ${run.seeds > 1 ? "the first seed's run" : "the run"}.`;
  return [make("h3", {}, `${run.line}: ${names[t]} taken for ${names[p]}`),
    found.length ? make("div", { class: "gallery" }, ...found.map(image => mistake(run.dataset, names, image))) : make("p", { class: "soft" }, few)];
};
const openCell = (runs, t, p) => {
  const place = document.getElementById("cell");
  place.replaceChildren(...runs.flatMap(run => cellImages(run, t, p)));
  place.tabIndex = -1;
  place.focus();
};
// of many norms, three that tell most at first; the menu has all
const FIRST = ["batch", "group:", "layer"];
let shownMatrices = null;
const chosenMatrices = lines => {
  const asked = shownMatrices ?? state.more.get("matrices")?.split(",");
  if (shownMatrices && !shownMatrices.length) return [];
  const kept = lines.filter(line => asked?.includes(line));
  if (kept.length) return kept;
  const first = FIRST.flatMap(kind => lines.filter(line => line.split(" ")[0] === kind || kind.endsWith(":") && line.startsWith(kind)).slice(0, 1));
  return first.length ? lines.filter(line => first.includes(line)) : lines.slice(0, 3);
};
const drawMatrices = () => {
  const runs = panel(data.runs, PANEL), place = within("confusions", ".matrices");
  tellPanel("confusions", runs, PANEL);
  document.getElementById("cell").replaceChildren();
  const lines = runs.map(run => run.line), shown = chosenMatrices(lines), choose = within("confusions", ".choose");
  choose.replaceChildren(...(lines.length > 1 ? lines : []).map(line => {
    const box = make("input", { type: "checkbox", value: line });
    box.checked = shown.includes(line);
    box.addEventListener("change", () => {
      shownMatrices = [...choose.querySelectorAll("input:checked")].map(one => one.value);
      remember("matrices", shownMatrices.join(","));
      drawMatrices();
      within("confusions", `.choose input[value="${CSS.escape(line)}"]`).focus();
    });
    return make("label", {}, box, line);
  }));
  const found = shown.map(line => runs.find(run => run.line === line)), each = found.map(perRun);
  place.replaceChildren();
  if (!found.length) { if (lines.length) place.append("No norm is chosen."); return; }
  const names = data.classes[found[0].dataset];
  place.append(
    ...found.map((run, n) => matrix(run, `${run.line}: ${wrongOf(each[n]).toFixed(run.seeds > 1 ? 1 : 0)} wrong`, each[n], names)),
    ...found.slice(1).map((run, n) => matrix(run, `${run.line} less ${found[0].line}`, each[n + 1].map((row, t) => row.map((value, p) => value - each[0][t][p])), names, found[0])));
};
