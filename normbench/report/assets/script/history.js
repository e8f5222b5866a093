// history: a small chart for each case, those that changed first; a column for each session
const historyOption = ({ low, high, band: level, points, changes }) => {
  const { axis, tooltip, ...base } = basics(), accent = colour("accent"), { sessions } = data.history;
  const within = value => Math.min(Math.max(value, low), high);
  const tip = ([n, value, reach, runs, more]) => {
    const seeds = runs ? plural(runs, "seed") : `unchanged since ${more}`;
    return `${value === null ? more : `${value.toFixed(2)} %${reach === null ? "" : ` ± ${reach.toFixed(2)}`}, ${seeds}`}; ${sessions[n]}`;
  };
  const known = points.filter(([, value]) => value !== null);
  const dots = points.map(point => {
    const [n, value, , runs] = point, fill = value === null ? colour("bad") : runs ? accent : colour("ground");
    return { value: [n, value === null ? low : within(value)], told: tip(point), itemStyle: { color: fill, borderColor: value === null ? colour("bad") : accent, borderWidth: 1 } };
  });
  return {
    ...base,
    grid: { left: 4, right: 4, top: 6, bottom: 6 },
    tooltip: { ...tooltip, trigger: "item", formatter: item => `<div class="told">${escaped(item.data?.told ?? item.name)}</div>` },
    xAxis: { type: "value", show: false, min: -0.5, max: sessions.length - 0.5 },
    yAxis: { type: "value", show: false, min: low, max: high },
    series: [
      { type: "line", name: "accuracy", symbol: "none", silent: true, lineStyle: { color: accent, width: 1.5 }, data: known.map(([n, value]) => [n, within(value)]),
        markArea: level ? { silent: true, itemStyle: { color: colour("zone") }, data: [[{ yAxis: level[0] }, { yAxis: level[1] }]] } : undefined,
        markLine: { symbol: "none", label: { show: false }, lineStyle: { color: colour("bad"), type: "dashed", width: 2 }, data: changes.map(([n, text]) => ({ xAxis: n - 0.5, name: text })) } },
      whiskers("interval", known.filter(([, , reach]) => reach !== null).map(([n, value, reach]) => [n, within(value - reach), within(value + reach)]), accent),
      { type: "scatter", name: "sessions", symbolSize: 5, data: dots },
    ],
  };
};
const smallChart = (place, item) => {
  const box = make("div", { class: "chart", style: "height:64px", role: "img", "aria-label": `${item.case}: ${item.caption}; the axis reaches from ${item.low.toFixed(2)} to ${item.high.toFixed(2)} %` });
  const figure = make("figure", { class: item.changed ? "changed" : null, "data-case": item.case }, box, make("figcaption", {}, make("b", {}, item.case), ` ${item.caption}`));
  for (const [, text] of item.changes) figure.lastChild.append(make("span", { class: "change" }, text));
  place.append(figure);
  const chart = echarts.init(box, null, { renderer: "svg" });
  const option = historyOption(item);
  chart.setOption(option);
  figure.append(byKeys(chart, box, option, null));
  drawn.set(box, chart);
  sizes.observe(box);
};
let historyLimit = 24;
const drawHistory = () => {
  const chosen = new Set(filtered(data.cases).map(item => item.title)), every = data.history.cases;
  // the history is of the last session alone
  const cases = every.filter(item => chosen.has(item.case)), place = emptied(within("history", ".charts"));
  within("history", ".panel").textContent = cases.length ? `${plural(cases.filter(item => item.changed).length, "case")} of ${cases.length} changed; what changed stands first.` : "Nothing here fits the filters.";
  cases.slice(0, historyLimit).forEach(item => smallChart(place, item));
  within("history", ".more").hidden = cases.length <= historyLimit;
};
const buildHistory = () => within("history", ".more")?.addEventListener("click", () => { historyLimit = Infinity; drawHistory(); });
