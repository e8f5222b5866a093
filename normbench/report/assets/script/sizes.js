// accuracy by batch size, beside the shape that was published
const sizesOption = (lines, axisName) => {
  const { axis, tooltip, ...base } = basics();
  const ticks = unique(lines.flatMap(line => line.points.map(([size]) => size))).sort((a, b) => a - b);
  return {
    ...base,
    grid: { left: 50, right: 14, top: 12, bottom: 38 },
    tooltip: { ...tooltip, ...axisTip(log => `${axisName} ${Math.round(2 ** log)}`, ({ value }) => `${value[1].toFixed(2)} %${value[2] == null ? "" : ` ± ${value[2].toFixed(2)}`}`, stylesOf(lines)) },
    // by its logarithm, as the library's own logarithmic axis cannot begin at 1
    xAxis: { ...axis, type: "value", min: Math.log2(ticks[0]) - 0.2, max: Math.log2(ticks.at(-1)) + 0.2, interval: 1, axisLabel: { ...axis.axisLabel, formatter: value => ticks.includes(Math.round(2 ** value)) && Number.isInteger(value) ? String(2 ** value) : "" }, splitLine: { show: false }, name: axisName, nameLocation: "middle", nameGap: 24 },
    yAxis: { ...axis, type: "value", scale: true, ...upTo100 },
    dataZoom: ZOOM,
    series: lines.flatMap(line => {
      const style = styleOf(line), points = line.points.map(([size, y, reach]) => [Math.log2(size), y, reach]);
      return [
        { type: "line", name: line.line, symbol: symbolOf(line), symbolSize: 6, showSymbol: true, itemStyle: { color: style.colour }, lineStyle: lineStyle(style), emphasis: { focus: "series" }, data: points, z: 3 },
        whiskers(`${line.line} interval`, points.filter(([, , reach]) => reach != null).map(([x, y, reach]) => [x, y - reach, y + reach]), style.colour),
      ];
    }),
  };
};
const sizesTable = lines => () => {
  const all = unique(lines.flatMap(line => line.points.map(([size]) => size))).sort((a, b) => a - b);
  return numbersTable(["norm", ...all], lines.map(line => [line.line, ...all.map(size => line.points.find(([at]) => at === size)?.[1].toFixed(2) ?? "")]));
};
const drawSizes = () => {
  const names = ["setting", "regularizer"], lines = panel(data.sizes, names), place = emptied(within("sizes", ".charts"));
  tellPanel("sizes", lines, names);
  if (!lines.length) return;
  chartFigure(place, "sizes", "test accuracy (%)", sizesOption(lines, "batch size"), { table: sizesTable(lines) });
  const published = Object.entries(data.published).map(([line, points]) => ({ line, norm: line, points }));
  chartFigure(place, "published", `published: validation accuracy on ImageNet (%), ${published.map(({ line }) => line).join(" and ")}`, sizesOption(published, "images"), { table: sizesTable(published) });
};
