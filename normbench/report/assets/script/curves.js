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
  const values = epochs.map(n => atEpoch(run, name, n, log)), style = styleOf(run);
  const line = { type: "line", name: run.line, symbol: symbolOf(run), symbolSize: 4, showSymbol: xs.length < 3, itemStyle: { color: style.colour }, lineStyle: lineStyle(style), emphasis: { focus: "series" }, data: xs.map((x, n) => [x, mean(values[n])]), z: 3 };
  const several = run.curves[name].length > 1;
  if (several && seeds) return [line, ...run.curves[name].map((seed, s) => ({ type: "line", name: `${run.line}, seed ${s}`, symbol: "none", silent: true, tooltip: { show: false }, lineStyle: { ...lineStyle(style, 1), opacity: 0.5 }, data: xs.filter(x => x <= seed.length).map(x => [x, figureAt(name, seed[x - 1], log)]) }))];
  return several ? [line, band(run, values.map(v => Math.min(...v)), values.map(v => Math.max(...v)), xs)] : [line];
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
      }),
    },
    xAxis: { ...axis, type: "value", min: Math.min(choices.first, last), max: last === choices.first ? last + 1 : last, minInterval: 1, name: "epoch", nameLocation: "middle", nameGap: 24, splitLine: { show: false } },
    yAxis: { ...axis, type: choices.log ? "log" : "value", scale: true },
    dataZoom: [{ type: "inside", zoomOnMouseWheel: "ctrl" }],
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
const drawCurves = () => {
  const runs = panel(withCurves, PANEL), place = emptied(within("curves", ".charts"));
  tellPanel("curves", runs, PANEL);
  if (!runs.length) return;
  // a quarter of the epochs: what comes before them lies far off, and presses the rest together
  const first = checked("curves", "late") ? Math.floor(Math.max(...runs.map(epochsOf)) / 4) + 1 : 1;
  drawCurveCharts(place, runs, { seeds: checked("curves", "seeds"), log: checked("curves", "log"), first });
};
