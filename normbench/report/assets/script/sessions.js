// sessions side by side: a row for each case that two of them have, with both figures and what lies between
const pairs = () => {
  const cases = filtered(data.cases, "session"), of = Map.groupBy(cases, item => item.id);
  const [first, second] = ["before", "after"].map(name => Number(within("sessions", `[name=${name}]`).value));
  return [...of.values()].flatMap(items => {
    const before = items.find(item => item.session === first), after = items.find(item => item.session === second);
    const figures = [before, after].map(item => item?.figures.test_accuracy_percent);
    if (!before || !after || figures.includes(undefined)) return [];
    const reaches = [before, after].map(item => item.figures.interval_points);
    // of independent means, the squares of the intervals add up
    const reach = reaches.includes(undefined) ? null : Math.hypot(...reaches);
    return [{ id: after.id, before, after, difference: figures[1] - figures[0], reach }];
  }).sort((a, b) => Math.abs(b.difference) - Math.abs(a.difference));
};
const drawSessions = () => {
  const found = pairs(), limit = 50, show = value => value.toFixed(2);
  const line = ({ before, after, difference, reach }) => make("tr", { class: reach !== null && difference + reach < 0 ? "failed" : null },
    make("th", { scope: "row" }, button(after.id, () => openCase(after.key), { class: "case" })),
    ...[show(before.figures.test_accuracy_percent), show(after.figures.test_accuracy_percent), signed(difference), reach === null ? "" : show(reach)].map(text => make("td", { class: "number" }, text)),
    make("td", {}, before.figures.verdict === after.figures.verdict ? after.figures.verdict : `${before.figures.verdict} → ${after.figures.verdict}`));
  const place = within("sessions", "tbody");
  place.replaceChildren(...found.slice(0, limit).map(line));
  within("sessions", ".panel").textContent = `${plural(found.length, "case")} in both, those that differ most first.`;
  const more = within("sessions", ".more");
  more.hidden = found.length <= limit;
  more.onclick = () => { place.append(...found.slice(limit).map(line)); more.hidden = true; };
};
const readSessions = () => document.querySelectorAll("#sessions select").forEach((menu, n) => {
  menu.value = state.more.get(menu.name) ?? "";
  if (!menu.value) menu.value = n ? data.sessions.length : 1;
});
const buildSessions = () => {
  const menus = document.querySelectorAll("#sessions select");
  menus.forEach(menu => {
    data.sessions.forEach((name, number) => menu.append(make("option", { value: number + 1 }, `${number + 1}: ${name}`)));
    menu.addEventListener("change", () => { remember(menu.name, menu.value); drawSessions(); });
  });
};
