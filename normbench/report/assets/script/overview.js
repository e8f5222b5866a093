// the first screen: all cases beside the baseline, or above their targets, sorted; a chart for each data set
const compared = data.cases.some(item => item.beside?.difference);
const figureOf = item => compared ? item.beside?.difference : item.room;
const tone = item => item.failed || ["regression", "suspected"].includes(item.beside?.outcome) ? "bad"
  : item.figures.verdict === "marginal" || item.beside?.outcome === "undecided" ? "open" : "accent";
const TONES = { bad: "worse, or failed", open: "undecided, or close to the target", accent: "holds" };
const overviewOption = items => {
  const { axis, tooltip, ...base } = basics(), effect = items[0].effect;
  const points = items.map((item, n) => ({ value: [n + 1, figureOf(item)[0]], item, itemStyle: { color: colour(tone(item)) } }));
  const reach = items.flatMap((item, n) => figureOf(item)[1] == null ? [] : [[n + 1, figureOf(item)[0] - figureOf(item)[1], figureOf(item)[0] + figureOf(item)[1], ["accent", "open", "bad"].indexOf(tone(item))]]);
  return {
    ...base,
    grid: { left: 48, right: 12, top: 14, bottom: 26 },
    tooltip: {
      ...tooltip, trigger: "item",
      formatter: ({ data: { item } }) => item ? `<b>${escaped(item.key)}</b>${row("", compared ? "difference" : "above the target", `${signed(figureOf(item)[0])}${figureOf(item)[1] == null ? "" : ` ± ${figureOf(item)[1].toFixed(2)}`}`)}${row("", "now", `${(item.figures.test_accuracy_percent ?? NaN).toFixed(2)} %`)}${escaped(item.look)}` : "",
    },
    xAxis: { ...axis, type: "value", min: 0, max: items.length + 1, axisLabel: { show: false }, splitLine: { show: false }, name: `${plural(items.length, "case")}, the lowest first`, nameLocation: "middle", nameGap: 8 },
    yAxis: { ...axis, type: "value" },
    dataZoom: ZOOM,
    series: [
      whiskers("interval", reach, n => colour(["accent", "open", "bad"][n] ?? "accent")),
      {
        type: "scatter", name: "cases", data: points, symbolSize: items.length > 300 ? 4 : 7, cursor: "pointer",
        markArea: { silent: true, itemStyle: { color: colour("zone") }, data: [[{ yAxis: compared ? -effect : 0 }, { yAxis: effect }]] },
        markLine: { silent: true, symbol: "none", label: { show: false }, lineStyle: { color: colour("soft"), type: "solid", width: 1 }, data: [{ yAxis: 0 }] },
      },
    ],
  };
};
const drawOverview = () => {
  const place = emptied(within("overview", ".charts"));
  const items = filtered(data.cases).filter(figureOf).sort((a, b) => figureOf(a)[0] - figureOf(b)[0]);
  for (const set of unique(items.map(item => item.figures.dataset))) {
    const part = items.filter(item => item.figures.dataset === set);
    const title = `${set}: ${compared ? "difference to the baseline" : "room to the target"}, percentage points`;
    chartFigure(place, `overview ${set}`, title, overviewOption(part), {
      height: 230, click: ({ data: point }) => point?.item && openCase(point.item.key),
      table: () => numbersTable(["case", "points", "±"], part.map(item => [item.key, signed(figureOf(item)[0]), figureOf(item)[1]?.toFixed(2) ?? ""])),
    });
  }
  const skipped = filtered(data.cases).length - items.length;
  within("overview", ".tones").hidden = !items.length;
  within("overview", ".panel").textContent = !items.length ? "Nothing here fits the filters." : (skipped ? `${plural(skipped, "case")} without ${compared ? "a difference" : "room to a target"} not drawn. ` : "")
    + `The shaded zone is ${compared ? "less than" : "within"} the smallest effect that matters.`;
  within("overview", ".tones").replaceChildren(...Object.entries(TONES).map(([name, text]) => make("span", {}, make("i", { class: name }), text)));
};
const drawLooks = () => {
  const items = filtered(data.cases).filter(item => item.look), place = document.getElementById("looks");
  // one heading for what nobody needs would be one too many
  place.hidden = !items.length;
  const limit = 12, list = place.querySelector("ul");
  const line = item => make("li", { class: tone(item) }, button(item.key, () => openCase(item.key), { class: "case" }), ` ${item.look}`);
  list.replaceChildren(...items.slice(0, limit).map(line));
  const more = items.slice(limit);
  if (more.length) list.append(make("li", {}, button(`${more.length} more`, ({ currentTarget }) => currentTarget.parentElement.replaceWith(...more.map(line)), { class: "plain" })));
};
