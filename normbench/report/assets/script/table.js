// the table of cases: sorted by a heading, searched by words and fields, as many columns as one chooses
const FIXED = [
  { name: "id", heading: "case", format: "s", read: item => item.id },
  ...several ? [{ name: "session", heading: "session", format: "d", read: item => item.session }] : [],
];
// which the case's name says as well: they come last
const NAMED = [
  { name: "norm", heading: "norm", format: "s", shown: true, read: item => item.norm },
  { name: "regularizer", heading: "regularizer", format: "s", shown: true, read: item => item.regularizer },
  { name: "batch_size", heading: "batch size", format: "d", shown: true, read: item => item.batch_size },
];
const BESIDE = data.cases.some(item => item.beside) ? [
  { name: "outcome", heading: "beside the baseline", format: "s", shown: true, read: item => item.beside?.outcome },
  { name: "beside_points", heading: "difference (points)", format: "+.2f", shown: true, read: item => item.beside?.difference?.[0] },
] : [];
const OPTIONAL = [...data.columns.map(column => ({ ...column, read: item => item.figures[column.name] })), ...BESIDE, ...NAMED];
const formatted = (value, format) => {
  if (value == null) return "";
  if (format === "s" || format === "d") return String(value);
  const digits = Number(format.match(/\.(\d)/)[1]);
  return format.startsWith("+") ? signed(value, digits) : value.toFixed(digits);
};
const shownAtFirst = () => new Set(OPTIONAL.filter(column => column.shown).map(column => column.name));
const table = { limit: 50, sort: null, down: false, chosen: shownAtFirst() };
const NO_COLUMNS = "none";
const columns = () => [...FIXED, ...OPTIONAL.filter(column => table.chosen.has(column.name))];

// norm:group asks for a field; l1:0.01, which is none, for a text anywhere
const FIELDS = Object.fromEntries([...FIXED, ...OPTIONAL, { name: "dataset", read: item => item.figures.dataset }, { name: "grid", read: item => item.grid }].map(column => [column.name, column.read]));
FIELDS.batch = FIELDS.batch_size;
const FORMATS = Object.fromEntries(OPTIONAL.map(column => [column.name, column.format]));
const valuesOf = {};
const wholeValues = name => valuesOf[name] ??= new Set(data.cases.map(item => String(FIELDS[name](item) ?? "").toLowerCase()));
const texts = new Map(data.cases.map(item => [item, [item.key, item.setting, item.norm, item.regularizer, item.batch_size, item.figures.verdict, item.beside?.outcome ?? "", item.look, item.figures.reason ?? ""].join(" ").toLowerCase()]));
const fits = (item, word) => {
  const at = word.indexOf(":"), field = FIELDS[word.slice(0, at)];
  if (at < 0 || !field) return texts.get(item).includes(word);
  const value = String(field(item) ?? "").toLowerCase(), wanted = word.slice(at + 1);
  if (typeof field(item) === "number") return value === wanted || formatted(field(item), FORMATS[word.slice(0, at)] ?? "d") === wanted;
  // layer is a norm's name, and stands for that alone; lay is none, and a part of several
  return wholeValues(word.slice(0, at)).has(wanted) ? value === wanted : value.includes(wanted);
};
const tableItems = () => {
  const words = document.getElementById("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const items = filtered(data.cases).filter(item => words.every(word => fits(item, word)));
  const column = columns().find(({ name }) => name === table.sort);
  if (!column) return items;
  const sign = table.down ? -1 : 1;
  // absent figures last, whichever way
  return items.map(item => [column.read(item) ?? null, item]).sort(([a], [b]) => a === b ? 0 : a === null ? 1 : b === null ? -1 : (a < b ? -1 : 1) * sign).map(([, item]) => item);
};
const tableCell = (item, { name, heading, format, read }) => {
  const text = formatted(read(item), format), number = format === "s" ? "" : "number";
  if (name === "id") return make("th", { scope: "row" }, button(text, () => openCase(item.key), { class: "case" }));
  // beside its name on a card, where there are no headings
  const attributes = { "data-name": name, "data-label": heading, class: text ? number : `${number} empty` };
  return name === "verdict" ? make("td", attributes, make("span", { class: `verdict ${tone(item)}` }, text)) : make("td", attributes, text);
};
const drawTable = () => {
  const shown = columns(), items = tableItems();
  const head = make("tr", {}, ...shown.map(({ name, heading, format }) => make("th", { scope: "col", class: format === "s" ? null : "number", "aria-sort": table.sort === name ? table.down ? "descending" : "ascending" : null },
    button(heading, () => { table.down = table.sort === name && !table.down; table.sort = name; remember("sort", (table.down ? "-" : "") + name); drawTable(); within("cases", `thead th:nth-child(${shown.findIndex(one => one.name === name) + 1}) button`).focus(); }))));
  within("cases", "thead").replaceChildren(head);
  // laying out more rows than one looks at would make sorting slow
  within("cases", "tbody").replaceChildren(...items.slice(0, table.limit).map(item => make("tr", { class: item.failed ? "failed" : null }, ...shown.map(column => tableCell(item, column)))));
  document.getElementById("shown").textContent = `${items.length} of ${plural(data.cases.length, "case")}`;
  document.getElementById("all").hidden = items.length <= table.limit;
};
const csvField = text => /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
// a spreadsheet would take a text that begins so for a formula
const csvText = (value, format) => csvField(typeof value === "string" && /^[=+@\t-]/.test(value) && format === "s" ? `'${value}` : String(value ?? ""));
const csv = () => [columns().map(column => csvField(column.name)).join(","), ...tableItems().map(item => columns().map(column => csvText(column.read(item), column.format)).join(","))].join("\n") + "\n";
const saveCsv = () => {
  const url = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  save("cases.csv", url);
  setTimeout(() => URL.revokeObjectURL(url), 10000);
};
const readTable = () => {
  const sort = state.more.get("sort") ?? "", asked = state.more.get("columns")?.split(",");
  document.getElementById("search").value = state.more.get("search") ?? "";
  table.sort = sort.replace(/^-/, "") || null;
  table.down = sort.startsWith("-");
  const known = asked?.filter(name => name === NO_COLUMNS || name in FORMATS);
  table.chosen = known?.length ? new Set(known) : shownAtFirst();
  for (const box of document.querySelectorAll("#columns input")) box.checked = table.chosen.has(box.value);
};
const buildTable = () => {
  const search = document.getElementById("search");
  search.addEventListener("input", () => { remember("search", search.value); drawTable(); });
  document.getElementById("all").addEventListener("click", () => { table.limit = Infinity; drawTable(); });
  document.getElementById("csv").addEventListener("click", saveCsv);
  document.getElementById("columns").append(...OPTIONAL.map(({ name, heading }) => {
    const box = make("input", { type: "checkbox", value: name });
    box.addEventListener("change", () => {
      box.checked ? table.chosen.add(name) : table.chosen.delete(name);
      remember("columns", [...table.chosen].join(",") || NO_COLUMNS);
      drawTable();
    });
    return make("label", {}, box, heading);
  }));
};
