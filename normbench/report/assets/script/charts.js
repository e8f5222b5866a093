// charts: what all of them have in common; the library draws, and leaves colours and figures to us
const drawn = new Map();
const TEXT = "system-ui, sans-serif";
const lineStyle = ({ colour, dash }, width = 2) => ({ color: colour, width, type: dash.length ? dash.map(length => Math.max(1, length * width)) : "solid" });
const styleOf = item => data.styles.norm[item.norm];
// runs that ended badly, and further sessions, are told apart by their symbols
const symbolOf = item => item.session > 1 ? ["triangle", "diamond", "rect"][(item.session - 2) % 3] : "circle";

const basics = () => {
  const soft = colour("soft"), line = colour("line");
  const axis = {
    axisLine: { lineStyle: { color: line } }, axisTick: { show: false }, splitLine: { lineStyle: { color: line, opacity: 0.5 } },
    axisLabel: { color: soft, hideOverlap: true, fontFamily: TEXT }, nameTextStyle: { color: soft, fontFamily: TEXT },
  };
  return {
    animation: false,
    backgroundColor: "transparent",
    textStyle: { color: colour("text"), fontFamily: TEXT },
    axis,
    tooltip: { backgroundColor: colour("ground"), borderColor: line, textStyle: { color: colour("text"), fontSize: 12 }, confine: true, className: "tooltip" },
  };
};
const escaped = text => String(text).replace(/[&<>"]/g, sign => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[sign]);
const row = (marker, name, value) => `<div class="tip">${marker}<span>${escaped(name)}</span><b>${escaped(value)}</b></div>`;

// what lies outside the zoom is cut off, and not left out: lines go on to the edge
const ZOOM = [{ type: "inside", zoomOnMouseWheel: "ctrl", filterMode: "none" }];
// a saved chart stands alone, and says what it is and which line is which
const alone = (option, title) => {
  const names = unique(option.series.filter(({ type, silent }) => type === "line" && !silent).map(({ name }) => name));
  return {
    ...option, backgroundColor: colour("ground"),
    title: { text: title, left: 12, top: 10, textStyle: { color: colour("text"), fontSize: 15, fontWeight: 600, fontFamily: TEXT } },
    legend: { data: names, left: "center", bottom: 8, itemWidth: 30, textStyle: { color: colour("text"), fontFamily: TEXT } },
    grid: { ...option.grid, top: 48, left: 64, bottom: 50 + 26 * Math.ceil(names.length / 7) },
  };
};
const save = (name, href) => make("a", { href, download: name }).click();
const saveSvg = (figure, option, title) => {
  const place = make("div", { style: "width:900px;height:560px" });
  const chart = echarts.init(place, null, { renderer: "svg", width: 900, height: 560 });
  chart.setOption(alone(option, title));
  const url = URL.createObjectURL(new Blob([chart.renderToSVGString()], { type: "image/svg+xml" }));
  save(`${figure}.svg`, url);
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  chart.dispose();
};
const savePng = (figure, option, title) => {
  const place = make("div");
  const chart = echarts.init(place, null, { renderer: "canvas", width: 900, height: 560, devicePixelRatio: 2 });
  chart.setOption(alone(option, title));
  save(`${figure}.png`, chart.getDataURL({ backgroundColor: colour("ground") }));
  chart.dispose();
};

// what a tip says of one line: that alone, where it lists them all
const tipOf = (box, name) => {
  const tip = box.querySelector(".tooltip"), own = [...tip?.querySelectorAll(".tip") ?? []].find(row => row.querySelector("span").textContent === name);
  return own ? `${name}: ${tip.querySelector("b").textContent}, ${own.querySelector("b").textContent}` : `${name}: ${tip?.innerText ?? ""}`;
};
// the arrow keys go from point to point, and from line to line, as the pointer would; what the tip shows is told as well
const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
const byKeys = (chart, box, { series }, click) => {
  const told = make("output", { class: "unseen" });
  const lines = [...series.keys()].filter(n => series[n].type !== "custom" && !series[n].silent && series[n].data?.length);
  const around = (place, count) => (place + count) % count;
  let line = 0, point = -1;
  const leave = () => { for (const type of ["hideTip", "downplay", "updateAxisPointer"]) chart.dispatchAction({ type, currTrigger: "leave" }); };
  box.tabIndex = 0;
  box.addEventListener("blur", leave);
  box.addEventListener("keydown", event => {
    if (event.key === "Escape") leave();
    if (event.key === "Enter" && point >= 0) click?.({ data: series[lines[line]].data[point] });
    if (!lines.length || !(event.key in STEPS)) return;
    event.preventDefault();
    const [across, along] = STEPS[event.key];
    line = around(line + (point < 0 ? 0 : across), lines.length);
    const { data: points } = series[lines[line]];
    point = point < 0 ? along < 0 ? points.length - 1 : 0 : around(Math.min(point, points.length - 1) + along, points.length);
    const at = { seriesIndex: lines[line], dataIndex: point };
    chart.dispatchAction({ type: "downplay" });
    chart.dispatchAction({ type: "highlight", ...at });
    chart.dispatchAction({ type: "showTip", ...at });
    told.textContent = tipOf(box, series[lines[line]].name);
  });
  return told;
};

// a chart in a figure: its title, what saves it, and the figures as a table, for who cannot see it
const chartFigure = (place, name, title, option, { height = 300, click = null, table = null } = {}) => {
  const box = make("div", { class: "chart", style: `height:${height}px`, role: "img", "aria-label": `${title}; the arrow keys go from point to point` });
  const tools = make("span", { class: "tools" }, button("SVG", () => saveSvg(name, option, title), { "aria-label": `save ${title} as SVG` }), button("PNG", () => savePng(name, option, title), { "aria-label": `save ${title} as PNG` }));
  const figure = make("figure", { "data-chart": name }, make("figcaption", {}, make("span", {}, title), tools), box);
  if (table) {
    const details = make("details", { class: "numbers" }, make("summary", {}, "the figures"));
    details.addEventListener("toggle", () => { if (details.open && !details.querySelector("table")) details.append(scrolled(`figures of ${title}`, table())); });
    figure.append(details);
  }
  place.append(figure);
  const chart = echarts.init(box, null, { renderer: "svg" });
  chart.setOption(option);
  if (click) chart.on("click", click);
  figure.append(byKeys(chart, box, option, click));
  chart.getZr().on("dblclick", () => chart.dispatchAction({ type: "dataZoom", start: 0, end: 100 }));
  drawn.set(box, chart);
  sizes.observe(box);
  return figure;
};
const sizes = new ResizeObserver(entries => entries.forEach(({ target }) => drawn.get(target)?.resize()));
const emptied = place => {
  for (const box of place.querySelectorAll(".chart")) { drawn.get(box)?.dispose(); drawn.delete(box); sizes.unobserve(box); }
  place.replaceChildren();
  return place;
};
const numbersTable = (heads, rows, kind = "number") => make("table", {},
  make("thead", {}, make("tr", {}, ...heads.map((head, n) => make("th", n ? { class: kind, scope: "col" } : { scope: "col" }, String(head))))),
  make("tbody", {}, ...rows.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row" }, String(first)), ...rest.map(value => make("td", { class: kind }, String(value)))))));

// a band between two lines, and whiskers: shapes of our own, as the library has neither
const band = (item, low, high, xs, opacity = 0.15) => ({
  type: "custom", name: `${item.line} band`, silent: true, z: 1, tooltip: { show: false }, data: [[xs[0], 0]],
  encode: { x: -1, y: -1 },
  renderItem: (_, api) => ({
    type: "polygon",
    shape: { points: [...xs.map((x, n) => api.coord([x, high[n]])), ...xs.map((x, n) => api.coord([x, low[n]])).reverse()] },
    style: { fill: styleOf(item).colour, opacity },
  }),
  clip: true,
});
const whiskers = (name, points, stroke) => ({
  type: "custom", name, silent: true, z: 1, tooltip: { show: false }, clip: true,
  data: points, encode: { x: 0, y: [1, 2] },
  renderItem: (_, api) => {
    const x = api.value(0), low = api.coord([x, api.value(1)]), high = api.coord([x, api.value(2)]);
    return { type: "line", shape: { x1: low[0], y1: low[1], x2: high[0], y2: high[1] }, style: { stroke: typeof stroke === "function" ? stroke(api.value(3)) : stroke, lineWidth: 1.2, opacity: 0.7 } };
  },
});
const dashed = ({ colour: stroke, dash }) => `<svg width="24" height="6" aria-hidden="true"><line x2="24" y1="3" y2="3" stroke="${escaped(stroke)}" stroke-width="3" stroke-dasharray="${dash.map(length => 3 * length).join(" ")}"/></svg>`;
// ``styles`` has the style of each line by its name
const stylesOf = items => new Map(items.map(item => [item.line, styleOf(item)]));
// percentages end at 100, where an axis would reach beyond it
const upTo100 = { max: ({ min, max }) => max <= 100 && max + (max - min) / 4 > 100 ? 100 : null };
const axisTip = (head, value, styles = new Map()) => ({
  trigger: "axis", order: "valueDesc",
  formatter: items => {
    const shown = items.filter(item => item.seriesType === "line" && item.value[1] != null), most = innerWidth < 640 ? 6 : 24;
    if (!shown.length) return "";
    const many = shown.sort((a, b) => b.value[1] - a.value[1]);
    const rows = many.slice(0, most).map(item => row(styles.has(item.seriesName) ? dashed(styles.get(item.seriesName)) : item.marker, item.seriesName, value(item)));
    return `<b>${escaped(head(many[0].value[0]))}</b>${rows.join("")}${many.length > most ? `and ${many.length - most} more` : ""}`;
  },
});
