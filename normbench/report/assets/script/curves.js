// learning curves: true values; early epochs are left out on demand, not drawn elsewhere than they are
const CURVES = { test_accuracy: "test accuracy (%)", train_accuracy: "training accuracy (%), augmented", test_loss: "test loss", train_loss: "training loss" };
const withCurves = [...data.runs, ...data.broken];
const PANEL = ["setting", "regularizer", "batch_size"];
const checked = (id, name) => within(id, `[name=${name}]`).checked;

// values of an epoch over the seeds; a run that ended early has none of the later. On a logarithmic axis, the share that is wrong
// tells accuracies near 100 % apart, and one without any mistake has no place
const figureAt = (name, value, log) => !name.endsWith("accuracy") ? value : log ? 100 * (1 - value) : 100 * value;
const atEpoch = (run, name, epoch, log = false) => run.curves[name].map(seed => seed[epoch]).filter(value => value !== undefined).map(value => figureAt(name, value, log));
const titleOf = (name, log) => log && name.endsWith("accuracy") ? CURVES[name].replace("accuracy", "error") : CURVES[name];
const epochsOf = run => Math.max(...run.curves.test_accuracy.map(seed => seed.length));
const curveSeries = (run, name, { seeds, first, log }) => {
  const epochs = [...Array(epochsOf(run)).keys()].filter(n => n + 1 >= first), xs = epochs.map(n => n + 1);
  // nothing on a logarithmic axis is zero: a line has a gap there, and a band ends at the least that is shown
  const values = epochs.map(n => atEpoch(run, name, n, log)), style = styleOf(run), least = log ? Math.min(...values.flat().filter(value => value > 0)) : -Infinity;
  const drawable = value => log && value <= 0 ? null : value;
  const line = { type: "line", name: run.line, symbol: symbolOf(run), symbolSize: several ? 6 : 4, showSymbol: xs.length < 3 || several, itemStyle: { color: style.colour }, lineStyle: lineStyle(style), emphasis: { focus: "series" }, data: xs.map((x, n) => [x, drawable(mean(values[n]))]), z: 3 };
  const ofSeeds = run.curves[name].length > 1;
  if (ofSeeds && seeds) return [line, ...run.curves[name].map((seed, s) => ({ type: "line", name: `${run.line}, seed ${s}`, symbol: "none", silent: true, tooltip: { show: false }, lineStyle: { ...lineStyle(style, 1), opacity: 0.5 }, data: xs.filter(x => x <= seed.length).map(x => [x, drawable(figureAt(name, seed[x - 1], log))]) }))];
  const edge = choose => values.map(v => Math.max(choose(...v), least));
  return ofSeeds && least < Infinity ? [line, band(run, edge(Math.min), edge(Math.max), xs)] : [line];
};
const curveOption = (runs, name, choices) => {
  const { axis, tooltip, ...base } = basics(), accuracy = name.endsWith("accuracy");
  const digits = accuracy ? 2 : 4, last = Math.max(...runs.map(epochsOf));
  return {
    ...base,
    grid: { left: 50, right: 14, top: 12, bottom: 38 },
    tooltip: {
      ...tooltip,
      ...axisTip(epoch => `epoch ${epoch}`, item => {
        const run = runs.find(one => one.line === item.seriesName);
        if (!run) return item.value[1].toFixed(digits);
        const values = atEpoch(run, name, item.value[0] - 1, choices.log);
        return item.value[1].toFixed(digits) + (values.length > 1 ? ` (${Math.min(...values).toFixed(digits)} to ${Math.max(...values).toFixed(digits)})` : "");
      }, stylesOf(runs)),
    },
    xAxis: { ...axis, type: "value", min: Math.min(choices.first, last), max: last === choices.first ? last + 1 : last, minInterval: 1, name: "epoch", nameLocation: "middle", nameGap: 24, splitLine: { show: false } },
    // of a logarithm to the base 2, as whole powers of ten are too few ticks
    yAxis: choices.log ? { ...axis, type: "log", logBase: 2, axisLabel: { ...axis.axisLabel, formatter: value => String(Number(value.toPrecision(2))) } } : { ...axis, type: "value", scale: true, ...accuracy ? upTo100 : {} },
    dataZoom: ZOOM,
    series: runs.flatMap(run => curveSeries(run, name, choices)),
  };
};
const curveTable = (runs, name, first) => () => {
  const epochs = [...Array(Math.max(...runs.map(epochsOf))).keys()].filter(n => n + 1 >= first);
  return numbersTable(["epoch", ...runs.map(run => run.line)], epochs.map(n => [n + 1, ...runs.map(run => { const values = atEpoch(run, name, n); return values.length ? mean(values).toFixed(name.endsWith("accuracy") ? 2 : 4) : ""; })]));
};
const drawCurveCharts = (place, runs, choices, prefix = "") => {
  for (const name of Object.keys(CURVES))
    chartFigure(place, prefix + name, titleOf(name, choices.log), curveOption(runs, name, choices), { height: 280, table: curveTable(runs, name, choices.first) });
};
// a quarter of the epochs: what comes before them may lie far off, and press the rest together
const lateFirst = runs => Math.floor(Math.max(...runs.map(epochsOf)) / 4) + 1;
const reachOf = (runs, first) => {
  const values = runs.flatMap(run => run.curves.test_accuracy.flatMap(seed => seed.slice(first - 1)));
  return Math.max(...values) - Math.min(...values);
};
// unless one has chosen, the early epochs are left out where they take three quarters of the axis
const pressed = runs => runs.length > 0 && reachOf(runs, lateFirst(runs)) < reachOf(runs, 1) / 4;
const drawCurves = () => {
  const runs = panel(withCurves, PANEL), place = emptied(within("curves", ".charts"));
  tellPanel("curves", runs, PANEL);
  if (!runs.length) return;
  if (!state.more.has("late")) within("curves", "[name=late]").checked = pressed(runs);
  const first = checked("curves", "late") ? lateFirst(runs) : 1;
  drawCurveCharts(place, runs, { seeds: checked("curves", "seeds"), log: checked("curves", "log"), first });
};
const readCurves = () => { for (const box of document.querySelectorAll("#curves input")) box.checked = state.more.get(box.name) === "1"; };
const buildCurves = () => { for (const box of document.querySelectorAll("#curves input")) box.addEventListener("change", () => { remember(box.name, box.checked ? "1" : "0"); drawCurves(); }); };
