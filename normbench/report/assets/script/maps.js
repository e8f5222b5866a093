// heat maps: norms down, regularizers across, a table for each data set and batch size, coloured by value
const MEASURES = {
  accuracy: ["test accuracy (%)", item => item.figures.test_accuracy_percent, value => value.toFixed(2), true],
  difference: ["difference to the baseline (points)", item => item.beside?.difference?.[0], value => signed(value), true],
  room: ["room to the target (points)", item => item.room?.[0], value => signed(value), true],
  seconds: ["seconds of a run", item => item.figures.seconds, value => value.toFixed(1), false],
  spread: ["standard deviation over the seeds (points)", item => item.figures.test_accuracy_std_percent, value => value.toFixed(2), false],
};
// where most values lie; one that collapsed is marked as below the scale, in place of pressing the others to one colour
const scaleOf = values => {
  const sorted = [...values].sort((a, b) => a - b), at = share => sorted[Math.round(share * (sorted.length - 1))];
  const reach = 3 * (at(0.75) - at(0.25));
  return [Math.max(sorted[0], reach ? at(0.25) - reach : sorted[0]), Math.min(sorted.at(-1), reach ? at(0.75) + reach : sorted.at(-1))];
};
const heatCell = (item, [, read, show], [low, high]) => {
  const value = item && read(item);
  if (value == null) return make("td", { class: "number" }, item?.failed ? "–" : "");
  const share = high > low ? Math.min(Math.max((value - low) / (high - low), 0), 1) : 0.5;
  const outside = value < low ? "below" : value > high ? "above" : "";
  return make("td", { class: `number ${outside}`, style: outside ? null : `--share:${(100 * share).toFixed(0)}%` }, button(show(value), () => openCase(item.key), { title: `${item.key}${outside ? `: ${outside} the scale` : ""}` }));
};
const heatScale = ([low, high], show) => make("div", { class: "scale" }, make("span", {}, show(low)), make("i"), make("span", {}, show(high)));
const heatMap = (items, measure, title, scale) => {
  const across = unique(items.map(item => item.regularizer)), down = unique(items.map(item => item.line));
  if (items.every(item => measure[1](item) == null)) return null;
  const at = new Map(items.map(item => [`${item.line} ${item.regularizer}`, item]));
  const head = make("tr", {}, make("th", { scope: "col" }, "norm"), ...across.map(name => make("th", { class: "number", scope: "col" }, name)));
  const rows = down.map(name => make("tr", {}, make("th", { scope: "row" }, name), ...across.map(one => heatCell(at.get(`${name} ${one}`), measure, scale))));
  return make("figure", { class: "map" }, make("figcaption", {}, title, heatScale(scale, measure[2])), scrolled(title, make("table", { class: "heat" }, make("thead", {}, head), make("tbody", {}, ...rows))));
};
const drawMaps = () => {
  const measure = MEASURES[within("maps", "select").value], place = within("maps", ".maps");
  const items = filtered(data.cases), found = [];
  // tables of one data set are coloured alike
  const scales = new Map([...Map.groupBy(items, item => item.figures.dataset)].map(([set, of]) => [set, scaleOf(of.map(measure[1]).filter(value => value != null))]));
  for (const key of unique(items.map(item => `${item.session} ${item.grid}`))) {
    const grid = items.filter(item => `${item.session} ${item.grid}` === key);
    for (const size of unique(grid.map(item => item.batch_size)).sort((a, b) => a - b))
      found.push(heatMap(grid.filter(item => item.batch_size === size), measure, `${grid[0].grid}${data.sessions.length > 1 ? `, session ${grid[0].session}` : ""}, batch size ${size}`, scales.get(grid[0].figures.dataset)));
  }
  // a long grid of batch sizes would be thousands of pixels
  const shown = found.filter(Boolean);
  place.replaceChildren(...shown.slice(0, 12));
  if (shown.length > 12) place.append(button(`show ${shown.length - 12} more`, ({ currentTarget }) => currentTarget.replaceWith(...shown.slice(12)), { class: "plain" }));
  if (!shown.length) place.append("Nothing here fits the filters.");
};
const readMaps = () => {
  const menu = within("maps", "select");
  menu.value = state.more.get("map") ?? "";
  if (!menu.value && menu.options.length) menu.selectedIndex = 0;
};
const buildMaps = () => {
  const menu = within("maps", "select");
  for (const [name, [text, read]] of Object.entries(MEASURES)) if (data.cases.some(item => read(item) != null)) menu.append(make("option", { value: name }, text));
  menu.addEventListener("change", () => { remember("map", menu.value); drawMaps(); });
};
