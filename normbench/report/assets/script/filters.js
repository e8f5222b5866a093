// one bar of filters for all sections; it is kept in the address, so that a link shows the same
const FILTERS = [["setting", "data set"], ["regularizer", "regularizer"], ["batch_size", "batch size"], ["session", "session"]];
const state = { setting: "", regularizer: "", batch_size: "", session: "", norms: null, more: new Map() };
const norms = unique(data.cases.map(item => item.norm));

const readAddress = () => {
  const parameters = new URLSearchParams(location.hash.slice(1));
  for (const [name] of FILTERS) state[name] = parameters.get(name) ?? "";
  // an address from another session may name what this one lacks
  for (const [name] of FILTERS) if (!data.cases.some(item => String(item[name]) === state[name])) state[name] = "";
  const asked = parameters.getAll("norm"), known = asked.filter(norm => norms.includes(norm));
  // an empty one stands for no norm at all
  state.norms = known.length || asked.includes("") ? new Set(known) : null;
  state.more = new Map([...parameters].filter(([name]) => name !== "norm" && !FILTERS.some(([filter]) => filter === name)));
};
const address = (more = {}) => {
  const parameters = new URLSearchParams();
  for (const [name] of FILTERS) if (state[name]) parameters.set(name, state[name]);
  for (const norm of state.norms ?? []) parameters.append("norm", norm);
  if (state.norms && !state.norms.size) parameters.append("norm", "");
  for (const [name, value] of [...state.more, ...Object.entries(more)]) if (value) parameters.set(name, value);
  return parameters.toString();
};
// links to sections keep what is chosen
const tellContents = () => { for (const link of document.querySelectorAll("#contents a")) link.href = `#${address({ section: link.dataset.section })}`; };
const writeAddress = () => { history.replaceState(null, "", `#${address()}`); tellContents(); };
const remember = (name, value) => { state.more.set(name, value); writeAddress(); };

const hasNorm = item => !state.norms || state.norms.has(item.norm);
const matches = (item, but = "") => hasNorm(item) && FILTERS.every(([name]) => name === but || !state[name] || !(name in item) || String(item[name]) === state[name]);
const filtered = (items, but) => items.filter(item => matches(item, but));

// sections that show one configuration at a time take the first that the filters leave; the first is the plainest
const panel = (items, names) => {
  const left = filtered(items);
  if (!left.length) return [];
  // without any norm in it, a panel would be empty though others are not
  return left.filter(item => names.every(name => item[name] === left[0][name]));
};
const told = { setting: value => value, regularizer: value => value === "none" ? "no regularizer" : value, batch_size: value => `batch size ${value}` };
const tellPanel = (id, items, names) => {
  const place = within(id, ".panel");
  if (!items.length) { place.textContent = "Nothing here fits the filters."; return; }
  const open = names.filter(name => !state[name] && unique(data.cases.map(item => item[name])).length > 1);
  const hint = open.length ? ` (the first of several: choose ${open.map(name => FILTERS.find(([n]) => n === name)[1]).join(" and ")} above)` : "";
  const marks = unique(items.map(item => item.session)).map(session => `${{ circle: "●", triangle: "▲", diamond: "◆", rect: "■" }[symbolOf({ session })]} session ${session}`);
  place.textContent = [...names.map(name => told[name](items[0][name])), ...several ? marks : []].join(" · ") + hint;
  // on a phone the filters, which say what the lines are, are folded; and paper has none
  const section = document.getElementById(id), lines = new Map(items.filter(item => item.norm).map(item => [item.norm, item]));
  section.querySelector(".legend.norms")?.remove();
  if (lines.size > 1) place.after(make("p", { class: "legend norms" }, ...[...lines.keys()].map(norm => make("span", {}, swatch(data.styles.norm[norm]), norm))));
};

const swatch = style => {
  const place = make("canvas", { class: "swatch", width: 48, height: 8, "aria-hidden": "true" });
  const pen = place.getContext("2d");
  pen.strokeStyle = style.colour;
  pen.lineWidth = 5;
  pen.setLineDash(style.dash.map(length => 5 * length));
  pen.beginPath(); pen.moveTo(0, 4); pen.lineTo(48, 4); pen.stroke();
  return place;
};
const changeFilters = () => { writeAddress(); showFilters(); redraw(); };
const toggleNorm = norm => {
  const chosen = state.norms ?? new Set(norms);
  // in the order in which they stand
  const left = norms.filter(other => chosen.has(other) !== (other === norm));
  state.norms = left.length === norms.length ? null : new Set(left);
  changeFilters();
};
const onlyNorm = norm => { state.norms = state.norms?.size === 1 && state.norms.has(norm) ? null : new Set([norm]); changeFilters(); };

const buildFilters = () => {
  // on a phone it would cover what it filters
  if (innerWidth < 640) document.querySelector("#filters details").open = false;
  const menus = document.getElementById("menus"), chips = document.getElementById("norms");
  for (const [name, label] of FILTERS) {
    const values = unique(data.cases.map(item => String(item[name])));
    if (values.length < 2) continue;
    if (name === "batch_size") values.sort((a, b) => a - b);
    const menu = make("select", { "data-name": name }, make("option", { value: "" }, "all"), ...values.map(value => make("option", { value }, name === "session" ? `${value}: ${data.sessions[value - 1]}` : value)));
    menu.addEventListener("change", () => { state[name] = menu.value; changeFilters(); });
    menus.append(make("label", {}, label, menu));
  }
  const many = norms.length > 1;
  for (const norm of many ? norms : []) {
    const chip = button("", () => toggleNorm(norm), { "data-norm": norm, title: "click: show or hide; double click: this one alone" });
    chip.append(swatch(data.styles.norm[norm]), norm);
    chip.addEventListener("dblclick", () => onlyNorm(norm));
    chips.append(chip);
  }
  if (many) chips.append(button("all", () => { state.norms = null; changeFilters(); }, { class: "plain" }), button("none", () => { state.norms = new Set(); changeFilters(); }, { class: "plain" }));
  document.getElementById("clear").addEventListener("click", () => { for (const [name] of FILTERS) state[name] = ""; state.norms = null; state.more.delete("search"); readTable(); changeFilters(); });
};
const showFilters = () => {
  for (const menu of document.querySelectorAll("#menus select")) menu.value = state[menu.dataset.name];
  for (const chip of document.querySelectorAll("#norms [data-norm]")) chip.setAttribute("aria-pressed", hasNorm({ norm: chip.dataset.norm }));
  const count = filtered(data.cases).length, active = FILTERS.some(([name]) => state[name]) || state.norms || state.more.get("search");
  document.getElementById("matching").textContent = active ? `${count} of ${plural(data.cases.length, "case")}` : plural(data.cases.length, "case");
  document.getElementById("clear").hidden = !active;
};
