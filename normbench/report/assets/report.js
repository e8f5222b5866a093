"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = ["svg", "g", "path", "line", "circle", "rect", "text", "title"];
const make = (tag, attributes = {}, ...children) => {
  const space = SVG.includes(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const element = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const unique = values => [...new Set(values)];
const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;

// the table of cases: sort by a heading, filter by the menus and the words of the search
const caseTable = () => {
  const body = document.querySelector("#table tbody");
  // read once: asking the page for its texts at every click would be slow
  const read = text => text === "" ? null : isNaN(text) ? text : Number(text);
  const rows = [...body.rows].map(row => ({
    row,
    text: row.textContent.toLowerCase(),
    values: [...row.cells].map(cell => cell.textContent),
    keys: [...row.cells].map(cell => read(cell.dataset.key)),
  }));
  // laying out more rows than one looks at would make sorting slow
  let limit = 50;
  const menus = [...document.querySelectorAll("#cases select")];
  const search = document.getElementById("search"), all = document.getElementById("all");
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let fitting = 0;
    for (const { row, text, values } of rows) {
      const fits = menus.every(menu => !menu.value || values[menu.dataset.column] === menu.value)
        && words.every(word => text.includes(word));
      fitting += fits;
      row.hidden = !fits || fitting > limit;
    }
    document.getElementById("shown").textContent = `${fitting} of ${rows.length} cases`;
    all.hidden = fitting <= limit;
  };
  const headings = [...document.querySelectorAll("#table th")];
  headings.forEach((heading, column) => heading.firstElementChild.addEventListener("click", () => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    // absent figures last, whichever way
    rows.sort(({ keys: { [column]: a } }, { keys: { [column]: b } }) =>
      a === b ? 0 : a === null ? 1 : b === null ? -1 : (a < b ? -1 : 1) * (down ? -1 : 1));
    filter();
    body.replaceChildren(...rows.map(({ row }) => row));
  }));
  const showAll = () => { limit = Infinity; filter(); };
  all.addEventListener("click", showAll);
  addEventListener("beforeprint", showAll);
  for (const menu of menus) {
    for (const value of unique(rows.map(({ values }) => values[menu.dataset.column]))) menu.append(make("option", {}, value));
    menu.addEventListener("change", filter);
  }
  search.addEventListener("input", filter);
  filter();
};
if (document.getElementById("table")) caseTable();

// menus over items: each choice narrows what the next ones offer; a section without items goes
const choices = (section, items, names, draw) => {
  const place = document.querySelector(`#${section} .controls`);
  if (!place) return;
  if (!items.length) { document.getElementById(section).hidden = true; return; }
  const selects = names.map(([name, label]) => {
    const select = make("select", { "data-name": name });
    place.append(make("label", {}, label, select));
    select.addEventListener("change", () => { fill(); draw(chosen()); });
    return select;
  });
  const chosen = () => items.filter(item => selects.every(select => String(item[select.dataset.name]) === select.value));
  const fill = () => {
    let left = items;
    for (const select of selects) {
      const name = select.dataset.name, values = unique(left.map(item => String(item[name]))), kept = select.value;
      select.replaceChildren(...values.map(value => make("option", {}, value)));
      if (values.includes(kept)) select.value = kept;
      left = left.filter(item => String(item[name]) === select.value);
    }
  };
  fill();
  draw(chosen());
};
const setting = ["setting", "data set"], regularizer = ["regularizer", "regularizer"], batchSize = ["batch_size", "batch size"];

// Okabe and Ito's colours, with a dash pattern for each as well; a line keeps its own on the page
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#b2a100"];
const dashes = ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 3", "6 2 2 2"];
// what ended badly is drawn as far as it came
const withCurves = [...data.runs, ...data.broken];
const lines = unique(withCurves.map(run => run.line));
const style = (line, among = lines) => { const n = Math.max(among.indexOf(line), 0); return { colour: colours[n % 8], dash: dashes[n % 8] }; };

// a chart of lines: points [x, y, low, high, title]; bands join low and high, whiskers stand alone
const chart = ({ name, title, series, ticks, xLabel = "", clip = null, bands = false, dots = false, level = null }) => {
  const W = 330, H = 210, left = 44, right = 10, top = 8, bottom = 26;
  const figure = make("figure", { "data-chart": name }, make("figcaption", {}, title));
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title });
  figure.append(svg);
  const points = series.flatMap(line => line.points);
  if (!points.length) return figure;
  const seen = [...points.flatMap(p => [p[2] ?? p[1], p[3] ?? p[1]]), ...(level ?? [])].sort((a, b) => a - b);
  const at = share => seen[Math.round(share * (seen.length - 1))];
  // the first epochs would press the rest together
  const low = at(clip === "low" ? 0.1 : 0), high = at(clip === "high" ? 0.9 : 1), span = high - low || 1;
  const digits = Math.min(Math.max(Math.ceil(-Math.log10(span / 4)) + 1, 0), 4);
  const xs = points.map(p => p[0]), first = Math.min(...xs), width = Math.max(...xs) - first;
  const x = value => left + (W - left - right) * (width ? (value - first) / width : 0.5);
  const y = value => top + (H - top - bottom) * (1 - (Math.min(Math.max(value, low), high) - low) / span);
  if (level) svg.append(make("rect", { x: left, width: W - left - right, y: y(level[1]), height: Math.max(y(level[0]) - y(level[1]), 1), fill: "currentColor", opacity: 0.1 }));
  for (let tick = 0; tick <= 4; tick++) {
    const value = low + span * tick / 4;
    svg.append(make("line", { class: "axis", x1: left, x2: W - right, y1: y(value), y2: y(value) }),
      make("text", { x: left - 4, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(digits)));
  }
  // the axis' name stands before its last number; a number that it would cover is left out
  const axis = ticks.length ? `${xLabel} ${ticks.at(-1)[1]}` : "", free = W - right - 6 * axis.length;
  ticks.forEach(([value, text], n) => {
    const last = n === ticks.length - 1;
    if (!last && x(value) + 3 * text.length > free) return;
    svg.append(make("text", { x: x(value), y: H - 8, "text-anchor": n && last ? "end" : "middle" }, last ? axis : text));
  });
  const path = list => "M" + list.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join("L");
  for (const { line, points, colour, dash } of series) {
    const ranged = points.filter(p => p[2] != null);
    if (bands && ranged.length)
      svg.append(make("path", { d: path([...ranged.map(p => [p[0], p[3]]), ...ranged.map(p => [p[0], p[2]]).reverse()]) + "Z", fill: colour, opacity: 0.15 }));
    else
      for (const p of ranged) svg.append(make("line", { x1: x(p[0]), x2: x(p[0]), y1: y(p[2]), y2: y(p[3]), stroke: colour, "stroke-width": 1.5 }));
    svg.append(make("path", { d: path(points), fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash, "data-line": line },
      make("title", {}, `${line}: ${points.at(-1)[4] ?? points.at(-1)[1].toFixed(digits)}`)));
    if (dots)
      for (const p of points) svg.append(make("circle", { cx: x(p[0]), cy: y(p[1]), r: 3, fill: colour }, make("title", {}, p[4] ?? `${line}: ${p[1].toFixed(digits)}`)));
  }
  return figure;
};
const some = values => unique([values[0], values[Math.floor((values.length - 1) / 2)], values.at(-1)]);
const epochTicks = count => some([...Array(count).keys()].map(n => n + 1)).map(n => [n, String(n)]);

// charts with a legend whose buttons hide a line in all of a section's charts
const hidden = {};
const legend = (section, names, among, draw) => {
  const off = hidden[section] ??= new Set();
  document.querySelector(`#${section} .legend`).replaceChildren(...names.map(name => {
    const { colour, dash } = style(name, among);
    const button = make("button", { type: "button", "aria-pressed": !off.has(name) },
      make("i", { style: `border-top-style: ${dash ? "dashed" : "solid"}; border-top-color: ${colour}` }), name);
    button.addEventListener("click", () => { off.has(name) ? off.delete(name) : off.add(name); draw(); });
    return button;
  }));
  return off;
};
const fillCharts = (section, figures) => document.querySelector(`#${section} .charts`).replaceChildren(...figures);

const titles = { test_accuracy: "test accuracy (%)", train_accuracy: "training accuracy (%), augmented", test_loss: "test loss", train_loss: "training loss" };
const drawCurves = chosen => {
  const off = legend("curves", unique(chosen.map(run => run.line)), lines, () => drawCurves(chosen));
  const seen = chosen.filter(run => !off.has(run.line));
  fillCharts("curves", Object.keys(titles).map(name => {
    const accuracy = name.endsWith("accuracy"), scale = accuracy ? 100 : 1;
    const series = seen.map(run => {
      const seeds = run.curves[name], several = seeds.length > 1;
      const points = seeds[0].map((_, epoch) => {
        const values = seeds.map(seed => scale * seed[epoch]);
        return [epoch + 1, mean(values), several ? Math.min(...values) : null, several ? Math.max(...values) : null];
      });
      points.at(-1)[4] = `${points.at(-1)[1].toFixed(accuracy ? 2 : 4)} after the last epoch, ${seeds.length} seed${several ? "s" : ""}`;
      return { line: run.line, points, ...style(run.line) };
    });
    const count = Math.max(...seen.map(run => run.curves[name][0].length), 1);
    return chart({ name, title: titles[name], series, ticks: epochTicks(count), xLabel: "epoch", clip: accuracy ? "low" : "high", bands: true });
  }));
};

const sizeTicks = series => unique(series.flatMap(s => s.points.map(p => p[0]))).sort((a, b) => a - b).map(n => [n, String(2 ** n)]);
const drawSizes = chosen => {
  const off = legend("sizes", chosen.map(item => item.line), lines, () => drawSizes(chosen));
  const series = chosen.filter(item => !off.has(item.line)).map(({ line, points }) => ({
    line,
    points: points.map(([size, y, reach]) => [Math.log2(size), y, reach === null ? null : y - reach, reach === null ? null : Math.min(y + reach, 100),
      `${line}, batch size ${size}: ${y.toFixed(2)} %${reach === null ? "" : ` ± ${reach.toFixed(2)}`}`]),
    ...style(line),
  }));
  const published = Object.entries(data.published).map(([line, points]) => ({
    line, points: points.map(([size, y]) => [Math.log2(size), y, null, null, `${line}, ${size} images: ${y.toFixed(1)} %`]),
    ...style(line.startsWith("group") ? lines.find(l => l.startsWith("group")) : line),
  }));
  fillCharts("sizes", [
    chart({ name: "sizes", title: "test accuracy (%)", series, ticks: sizeTicks(series), xLabel: "batch size", dots: true }),
    chart({ name: "published", title: `published: validation accuracy on ImageNet (%), ${Object.keys(data.published).join(" and ")}`, series: published, ticks: sizeTicks(published), xLabel: "images", dots: true }),
  ]);
};

// confusion matrices: a run's wrong images, and how two norms differ
const matrix = (title, cells, names, signed) => {
  const largest = Math.max(...cells.flatMap((row, t) => row.filter((_, p) => p !== t).map(Math.abs)), 1e-9);
  const shade = (v, same) => same || !v ? "" : `background: rgba(${v < 0 ? "0, 158, 115" : "213, 94, 0"}, ${(0.7 * Math.abs(v) / largest).toFixed(2)})`;
  const show = v => !v ? "" : (signed && v > 0 ? "+" : "") + (Number.isInteger(v) ? v : v.toFixed(Math.abs(v) < 10 ? 1 : 0));
  const head = make("tr", {}, make("th"), ...cells.map((_, p) => make("th", names[p].length > 1 ? { class: "upright" } : {}, names[p])));
  const rows = cells.map((row, t) => make("tr", {}, make("th", {}, names[t]), ...row.map((v, p) => make("td", { style: shade(v, p === t) }, p === t ? "" : show(v)))));
  return make("div", { class: "scroll" }, make("table", {}, make("caption", { class: "soft" }, title), head, ...rows));
};
const wrong = cells => cells.reduce((sum, row, t) => sum + row.reduce((s, v, p) => s + (p === t ? 0 : v), 0), 0);
const drawMatrices = chosen => {
  const kinds = ["batch", "group:", "layer"].flatMap(kind => {
    const norm = chosen.find(run => run.norm === kind || (kind.endsWith(":") && run.norm.startsWith(kind)))?.norm;
    return chosen.filter(run => run.norm === norm);
  });
  const shown = kinds.length ? kinds : chosen.slice(0, 3);
  const each = shown.map(run => run.confusion.map(row => row.map(v => v / run.seeds)));
  const names = data.classes[shown[0].dataset];
  document.querySelector("#confusions .matrices").replaceChildren(
    ...shown.map((run, n) => matrix(`${run.line}: ${wrong(each[n]).toFixed(run.seeds > 1 ? 1 : 0)} wrong`, each[n], names, false)),
    make("div", { class: "break" }),
    ...shown.slice(1).map((run, n) => matrix(`${run.line} less ${shown[0].line}`, each[n + 1].map((row, t) => row.map((v, p) => v - each[0][t][p])), names, true)));
};

// the gallery: each picture is a part of one sheet of its data set
const picture = (dataset, index, caption) => {
  const sheet = data.pictures[dataset], place = sheet.places[index], box = make("div", { class: "picture", role: "img", "aria-label": `test image ${index}` });
  if (place !== undefined) {
    const rows = Math.ceil(Object.keys(sheet.places).length / sheet.columns), percent = (n, of) => of > 1 ? 100 * n / (of - 1) : 0;
    box.style.backgroundImage = `url(${sheet.uri})`;
    box.style.backgroundSize = `${100 * sheet.columns}% ${100 * rows}%`;
    box.style.backgroundPosition = `${percent(place % sheet.columns, sheet.columns)}% ${percent(Math.floor(place / sheet.columns), rows)}%`;
  }
  return make("figure", { "data-image": index }, box, make("figcaption", {}, caption));
};
const drawGallery = ([group]) => {
  const { dataset } = group, names = data.classes[dataset], reason = data.pictures[dataset].reason;
  const row = (title, figures) => [make("h3", {}, title), make("div", { class: "gallery" }, ...figures)];
  const { labels } = data.pictures[dataset];
  const plain = indices => indices.map(index => picture(dataset, index, index in labels ? names[labels[index]] : `no. ${index}`));
  const parts = group.lines.flatMap(({ line, wrong, images }) => row(`${line}: ${wrong} wrong`,
    images.map(([index, truth, taken, sure]) => picture(dataset, index, `${names[truth]}, taken for ${names[taken]} (${Math.round(100 * sure)} %)`))));
  if (group.known && group.lines.length > 1) {
    parts.push(...row(`wrong with every norm: ${group.all_count}`, plain(group.all)));
    for (const { line, alone, alone_count } of group.lines) parts.push(...row(`wrong with ${line} alone: ${alone_count}`, plain(alone)));
  }
  document.getElementById("pictures").replaceChildren(...(reason ? [make("p", {}, `The images cannot be shown: ${reason}`)] : []), ...parts);
};

const statistics = { mean_before: "mean before the norm", std_before: "standard deviation before the norm", mean_after: "mean after the norm", std_after: "standard deviation after the norm" };
const withActivations = data.runs.flatMap(run => Object.entries(run.activations).map(([layer, values]) => ({ ...run, layer, values })));
const drawActivations = chosen => {
  const off = legend("activations", unique(chosen.map(run => run.line)), lines, () => drawActivations(chosen));
  const seen = chosen.filter(run => !off.has(run.line));
  fillCharts("activations", Object.keys(statistics).map(name => chart({
    name, title: statistics[name], xLabel: "epoch",
    series: seen.map(run => ({ line: run.line, points: run.values[name].map((v, n) => [n + 1, v]), ...style(run.line) })),
    ticks: epochTicks(Math.max(...seen.map(run => run.values[name].length), 1)), dots: true,
  })));
};

// weights: their sizes on a logarithmic scale, a line a regularizer
const SMALL = 1e-3;
const withWeights = data.runs.filter(run => run.weights.length);
const regularizers = unique(withWeights.map(run => run.regularizer));
// first what shows most: some batch sizes have been trained without a regularizer only
const beside = run => withWeights.filter(other => other.setting === run.setting && other.batch_size === run.batch_size && other.line === run.line).length;
const counts = new Map(withWeights.map(run => [run, beside(run)]));
const fullestFirst = [...withWeights].sort((a, b) => counts.get(b) - counts.get(a));
const drawWeights = chosen => {
  const off = legend("weights", chosen.map(run => run.regularizer), regularizers, () => drawWeights(chosen));
  const total = run => run.weights.reduce((sum, n) => sum + n, 0);
  const logs = data.edges.map(Math.log10);
  const series = chosen.filter(run => !off.has(run.regularizer)).map(run => ({
    line: run.regularizer,
    // a bin stands at its lower edge, the smallest below the first
    points: run.weights.map((n, bin) => [bin ? logs[bin - 1] : logs[0] - 0.25, 100 * n / total(run)]),
    ...style(run.regularizer, regularizers),
  }));
  const ticks = [-6, -4, -2, 1].map(n => [n, n === -6 ? "≤ 1e-6" : `1e${n}`]);
  fillCharts("weights", [chart({ name: "weights", title: "share of the weights by size (%), four bins a decade", series, ticks, xLabel: "size" })]);
  const below = run => run.weights.slice(0, logs.findIndex(log => log > Math.log10(SMALL) - 1e-6) + 1).reduce((sum, n) => sum + n, 0);
  document.getElementById("zeros").textContent = `Share of all parameters smaller than ${SMALL}, which is as good as zero: `
    + chosen.map(run => `${run.regularizer} ${(100 * below(run) / total(run)).toFixed(1)} %`).join(", ") + ". Means over the seeds.";
};

// history: a small chart for each case, those that changed first; a column for each session
const smallChart = ({ case: name, caption, changed, low, high, band, points, changes }) => {
  const W = 200, H = 60, { sessions } = data.history, step = (W - 8) / Math.max(sessions.length - 1, 1);
  const x = n => 4 + step * n, y = value => 4 + (H - 8) * (1 - (Math.min(Math.max(value, low), high) - low) / (high - low));
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${name}: ${caption}` },
    make("title", {}, `from ${low.toFixed(2)} to ${high.toFixed(2)} %`));
  if (band) svg.append(make("rect", { x: 0, width: W, y: y(band[1]), height: Math.max(y(band[0]) - y(band[1]), 1), fill: "currentColor", opacity: 0.1 }));
  for (const [n, told] of changes) svg.append(make("line", { class: "change", x1: x(n - 0.5), x2: x(n - 0.5), y1: 0, y2: H }, make("title", {}, told)));
  const known = points.filter(([, value]) => value !== null);
  svg.append(make("path", { d: "M" + known.map(([n, value]) => `${x(n).toFixed(1)},${y(value).toFixed(1)}`).join("L"), fill: "none", stroke: colours[0] }));
  for (const [n, value, reach, runs, more] of points) {
    const end = value === null ? more : "";
    if (reach !== null) svg.append(make("line", { x1: x(n), x2: x(n), y1: y(value - reach), y2: y(value + reach), stroke: colours[0], opacity: 0.4 }));
    const seeds = runs ? `${runs} seed${runs > 1 ? "s" : ""}` : `unchanged since ${more}`;
    const told = end || `${value.toFixed(2)} %${reach === null ? "" : ` ± ${reach.toFixed(2)}`}, ${seeds}`;
    svg.append(make("circle", { class: end ? "ended" : runs ? "trained" : "unchanged", cx: x(n), cy: end ? H - 3 : y(value), r: 2 }, make("title", {}, `${told}; ${sessions[n]}`)));
  }
  return make("figure", { class: changed ? "changed" : "", "data-case": name }, svg, make("figcaption", {}, make("b", {}, name), ` ${caption}`));
};
const drawHistory = limit => {
  const { cases } = data.history, section = document.getElementById("history");
  if (!section) return;
  section.hidden = !cases.length;
  section.querySelector("button").hidden = cases.length <= limit;
  fillCharts("history", cases.slice(0, limit).map(smallChart));
};

choices("curves", withCurves, [setting, regularizer, batchSize], drawCurves);
choices("sizes", data.sizes, [setting, regularizer], drawSizes);
choices("confusions", data.runs, [setting, regularizer, batchSize], drawMatrices);
choices("gallery", data.galleries, [setting, regularizer, batchSize], drawGallery);
choices("activations", withActivations, [setting, regularizer, batchSize, ["layer", "layer"]], drawActivations);
choices("weights", fullestFirst, [setting, batchSize, ["line", "norm"]], drawWeights);
drawHistory(24);
document.querySelector("#history button")?.addEventListener("click", () => drawHistory(Infinity));
addEventListener("beforeprint", () => drawHistory(Infinity));
