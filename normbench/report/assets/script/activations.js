// activations: what stands before and after a norm layer, by epoch
const STATISTICS = { mean_before: "mean before the norm", std_before: "standard deviation before the norm", mean_after: "mean after the norm", std_after: "standard deviation after the norm" };
const withActivations = data.runs.filter(run => Object.keys(run.activations).length);
const activationOption = (runs, layer, name) => {
  const { axis, tooltip, ...base } = basics(), last = Math.max(...runs.map(run => run.activations[layer][name].length));
  return {
    ...base,
    grid: { left: 50, right: 14, top: 12, bottom: 38 },
    tooltip: { ...tooltip, ...axisTip(epoch => `epoch ${epoch}`, ({ value }) => value[1].toPrecision(4), stylesOf(runs)) },
    xAxis: { ...axis, type: "value", min: 1, max: Math.max(last, 2), minInterval: 1, name: "epoch", nameLocation: "middle", nameGap: 24, splitLine: { show: false } },
    yAxis: { ...axis, type: "value", scale: true },
    series: runs.map(run => ({ type: "line", name: run.line, symbol: symbolOf(run), symbolSize: 4, showSymbol: last < 20, itemStyle: { color: styleOf(run).colour }, lineStyle: lineStyle(styleOf(run)), emphasis: { focus: "series" }, data: run.activations[layer][name].map((value, n) => [n + 1, value]) })),
  };
};
const drawActivations = () => {
  const runs = panel(withActivations, PANEL), place = emptied(within("activations", ".charts")), menu = within("activations", "select");
  tellPanel("activations", runs, PANEL);
  const layers = unique(runs.flatMap(run => Object.keys(run.activations)));
  const kept = menu.value || state.more.get("layer");
  menu.replaceChildren(...layers.map(layer => make("option", {}, layer)));
  if (layers.includes(kept)) menu.value = kept;
  if (!runs.length) return;
  const of = runs.filter(run => menu.value in run.activations);
  for (const [name, title] of Object.entries(STATISTICS))
    chartFigure(place, name, title, activationOption(of, menu.value, name), { height: 260, table: () => numbersTable(["norm", "first epoch", "last epoch"], of.map(run => [run.line, run.activations[menu.value][name][0].toPrecision(4), run.activations[menu.value][name].at(-1).toPrecision(4)])) });
};
const buildActivations = () => within("activations", "select")?.addEventListener("change", ({ target }) => { remember("layer", target.value); drawActivations(); });
