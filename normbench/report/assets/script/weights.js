// weights: their sizes on a logarithmic scale; a chart for each norm, a line for each regularizer
const SMALL = 1e-3;
const withWeights = data.runs.filter(run => run.weights.length);
const logs = data.edges.map(Math.log10);
const share = (run, bins) => 100 * sum(run.weights.slice(0, bins)) / sum(run.weights);
const zeros = run => share(run, logs.findIndex(log => log > Math.log10(SMALL) - 1e-6) + 1);
const power = value => value < -6 ? "" : value === -6 ? "≤ 1e-6" : `1e${value}`;
const weightsOption = runs => {
  const { axis, tooltip, ...base } = basics();
  return {
    ...base,
    grid: { left: 40, right: 14, top: 12, bottom: 38 },
    tooltip: { ...tooltip, ...axisTip(log => `from ${(10 ** log).toPrecision(2)}`, ({ value }) => `${value[1].toFixed(2)} %`, new Map(runs.map(run => [run.regularizer, data.styles.regularizer[run.regularizer]]))) },
    xAxis: { ...axis, type: "value", min: -7, max: 1, interval: 1, axisLabel: { ...axis.axisLabel, formatter: power }, splitLine: { show: false }, name: "size of a weight", nameLocation: "middle", nameGap: 24 },
    yAxis: { ...axis, type: "value", axisLine: { ...axis.axisLine, onZero: false } },
    series: runs.map(run => {
      const style = data.styles.regularizer[run.regularizer];
      // a bin stands at its lower edge, the smallest below the first
      const points = run.weights.map((_, bin) => [bin ? logs[bin - 1] : logs[0] - 0.25, 100 * run.weights[bin] / sum(run.weights)]);
      return { type: "line", name: run.regularizer, symbol: "none", itemStyle: { color: style.colour }, lineStyle: lineStyle(style), emphasis: { focus: "series" }, data: points };
    }),
  };
};
const drawWeights = () => {
  const matching = filtered(withWeights), place = emptied(within("weights", ".charts"));
  // first the batch size that has most regularizers: some have been trained without any only
  const sizesOf = unique(matching.map(run => `${run.session}|${run.setting}|${run.batch_size}`));
  const fullest = sizesOf.map(key => matching.filter(run => `${run.session}|${run.setting}|${run.batch_size}` === key)).sort((a, b) => unique(b.map(run => run.regularizer)).length - unique(a.map(run => run.regularizer)).length)[0] ?? [];
  tellPanel("weights", fullest, ["setting", "batch_size"]);
  const shown = unique(fullest.map(run => run.regularizer));
  within("weights", ".legend").replaceChildren(...shown.map(name => make("span", {}, swatch(data.styles.regularizer[name]), name)));
  const lines = unique(fullest.map(run => run.line)), limit = 6;
  const one = line => {
    const runs = fullest.filter(run => run.line === line);
    chartFigure(place, `weights ${line}`, `${line}: share of the weights (%)`, weightsOption(runs), { height: 220, table: () => numbersTable(["regularizer", `smaller than ${SMALL} (%)`], runs.map(run => [run.regularizer, zeros(run).toFixed(1)])) });
  };
  lines.slice(0, limit).forEach(one);
  if (lines.length > limit) place.append(button(`show ${lines.length - limit} more`, ({ currentTarget }) => { currentTarget.remove(); lines.slice(limit).forEach(one); }, { class: "plain" }));
  const first = fullest.filter(run => run.line === lines[0]);
  document.getElementById("zeros").textContent = first.length ? `Share of all parameters smaller than ${SMALL}, which is as good as zero, with the norm ${lines[0]}: `
    + first.map(run => `${told.regularizer(run.regularizer)} ${zeros(run).toFixed(1)} %`).join(", ") + ". Means over the seeds; four bins for each power of ten." : "";
};
