// a case's own page: all that it left
let cameFrom = null;
const openCase = key => {
  const button = document.activeElement;
  cameFrom = { y: scrollY, section: button?.closest("section")?.id, text: button?.textContent, button };
  state.more.set("case", key);
  history.pushState(null, "", `#${address()}`);
  showPage();
};
const closeCase = () => {
  state.more.delete("case");
  history.pushState(null, "", `#${address()}`);
  showPage();
};
// back to where one was, whether by the page's own button or by the browser's
const comeBack = () => {
  if (!cameFrom) return;
  const { y, section, text, button } = cameFrom;
  cameFrom = null;
  const same = button?.isConnected ? button : [...document.querySelectorAll(`#${section} button`)].find(one => one.textContent === text);
  scrollTo(0, y);
  same?.focus({ preventScroll: true });
};
const facts = pairs => make("dl", {}, ...pairs.filter(([, value]) => value !== "" && value != null).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
const percent = value => value == null ? "" : `${value.toFixed(2)} %`;
// how a verdict came about, in the order in which it does
const verdictFacts = item => {
  const { figures, room, beside } = item, reach = figures.interval_points;
  return facts([
    ["verdict", make("span", { class: `verdict ${tone(item)}` }, figures.verdict)],
    ["reason", figures.reason],
    ["test accuracy", figures.test_accuracy_percent == null ? "" : `${percent(figures.test_accuracy_percent)}${reach == null ? "" : ` ± ${reach.toFixed(2)}`}, the mean of ${plural(figures.seeds, "seed")} after the last epoch`],
    ["target", figures.target_percent == null ? "" : `more than ${percent(figures.target_percent)}: ${signed(room?.[0] ?? NaN)} points`],
    ["baseline", beside?.baseline == null ? "" : `${percent(beside.baseline)}, ${plural(beside.runs, "run")}`],
    ["difference", beside?.difference ? `${signed(beside.difference[0])} points${beside.difference[1] == null ? "" : ` ± ${beside.difference[1].toFixed(2)}`}; at least ${item.effect.toFixed(2)} matter` : ""],
    ["adjusted p", beside?.adjusted_p?.toPrecision(2)],
    ["beside the baseline", beside ? [beside.outcome, beside.reason].filter(Boolean).join(": ") : ""],
    ["published", percent(figures.published_percent)],
    ["run it again", make("code", {}, item.command)],
  ]);
};
const seedsTable = run => numbersTable(["seed", "epochs", "test accuracy (%)", "training accuracy (%)", "test loss"], run.curves.test_accuracy.map((seed, s) =>
  [s, seed.length, (100 * seed.at(-1)).toFixed(2), (100 * run.curves.train_accuracy[s].at(-1)).toFixed(2), run.curves.test_loss[s].at(-1).toFixed(4)]));
const part = (title, ...children) => make("section", {}, make("h2", {}, title), ...children);
const sameRun = (one, item) => [...PANEL, "session", "norm"].every(name => one[name] === item[name]);
const caseParts = (item, run) => {
  const parts = [part("Seeds", scrolled("seeds", seedsTable(run)))];
  const curves = make("div", { class: "charts" });
  parts.push(part("Learning curves", curves));
  if (run.confusion?.length) parts.push(part("Confusion matrix", make("div", { class: "matrices" }, matrix(run, `${wrongOf(perRun(run)).toFixed(1)} wrong in a run`, perRun(run), data.classes[run.dataset])), make("div", { id: "cell" })));
  const group = data.galleries.find(one => [...PANEL, "session"].every(name => one[name] === run[name])), line = group?.lines.find(one => one.line === run.line);
  if (line?.images.length) parts.push(part("Most confident mistakes", make("div", { class: "gallery" }, ...line.images.map(image => mistake(run.dataset, data.classes[run.dataset], image)))));
  const layers = Object.entries(run.activations ?? {}), last = values => values.at(-1)?.toPrecision(3) ?? "";
  if (layers.length) parts.push(part("Activations after the last epoch", scrolled("activations", numbersTable(["layer", ...Object.values(STATISTICS)], layers.map(([layer, values]) => [layer, ...Object.keys(STATISTICS).map(name => last(values[name]))])))));
  const weights = make("div", { class: "charts" });
  if (run.weights?.length) parts.push(part("Sizes of the weights", weights));
  return [parts, () => {
    drawCurveCharts(curves, [run], { seeds: true, log: false, first: 1 }, "case ");
    if (run.weights?.length) chartFigure(weights, "case weights", "share of the weights (%)", weightsOption([run]), { height: 220 });
  }];
};
const drawCase = item => {
  const place = emptied(document.getElementById("case")), runs = [...data.runs, ...data.broken].filter(run => sameRun(run, item));
  const heading = make("h1", { tabindex: -1 }, item.key);
  place.append(button("← all cases", closeCase, { class: "plain" }), heading, make("p", { class: "soft" }, `${item.setting} · ${item.norm} · ${told.regularizer(item.regularizer)} · batch size ${item.batch_size}`), verdictFacts(item));
  const draws = runs.map(run => {
    const [parts, draw] = caseParts(item, run);
    place.append(...parts);
    return draw;
  });
  const traces = data.traces.filter(trace => trace.norm === item.norm && trace.dataset === item.figures.dataset && trace.session === item.session);
  if (traces.length) place.append(part("Traces", scrolled("traces", numbersTable(["trace", "standing", "largest error over its bound", "what was seen"], traces.map(trace => trace.row.slice(0, 4)), ""))));
  const subjects = [`norm ${item.norm}`, ...item.regularizer.split("+").map(term => `regularizer ${term}`)];
  const checks = [...document.querySelectorAll(`#checks-${item.session} details`)].filter(check => subjects.includes(check.dataset.subject));
  if (checks.length) place.append(make("section", { class: "checks" }, make("h2", {}, "Checks"), ...checks.map(check => check.cloneNode(true))));
  const course = data.history.cases.find(one => one.case === item.title && item.session === data.sessions.length);
  if (course) {
    const box = make("div", { class: "charts small" });
    place.append(part("Earlier sessions", box));
    draws.push(() => smallChart(box, course));
  }
  document.title = item.key;
  draws.forEach(draw => draw());
  scrollTo(0, 0);
  heading.focus({ preventScroll: true });
};
const title = document.title;
const showPage = () => {
  const item = data.cases.find(one => one.key === state.more.get("case"));
  document.getElementById("report").hidden = Boolean(item);
  document.getElementById("case").hidden = !item;
  if (item) { drawCase(item); return; }
  emptied(document.getElementById("case"));
  document.title = title;
  for (const chart of drawn.values()) chart.resize();
  comeBack();
};
