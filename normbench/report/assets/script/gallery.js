// the gallery: each picture is a part of one sheet of its data set
const picture = (dataset, index, caption) => {
  const sheet = data.pictures[dataset], place = sheet.places[index];
  const box = make("div", { class: "picture", role: "img", "aria-label": `test image ${index}` });
  if (place !== undefined) {
    const rows = Math.ceil(Object.keys(sheet.places).length / sheet.columns), percent = (n, of) => of > 1 ? 100 * n / (of - 1) : 0;
    box.classList.add(`sheet-${dataset.replace(/[^a-z0-9]/gi, "-")}`);
    box.style.backgroundSize = `${100 * sheet.columns}% ${100 * rows}%`;
    box.style.backgroundPosition = `${percent(place % sheet.columns, sheet.columns)}% ${percent(Math.floor(place / sheet.columns), rows)}%`;
  }
  return make("figure", { "data-image": index }, box, make("figcaption", {}, caption));
};
const mistake = (dataset, names, [index, truth, taken, sure]) => picture(dataset, index, `${names[truth]}, taken for ${names[taken]} (${Math.round(100 * sure)} %)`);
// one rule for each sheet: the picture's address stands once on the page, not once for each part of it
const addSheets = () => {
  const style = make("style");
  for (const [dataset, { uri }] of Object.entries(data.pictures)) if (uri) style.append(`.sheet-${dataset.replace(/[^a-z0-9]/gi, "-")} { background-image: url(${uri}); }\n`);
  document.head.append(style);
};
// rows of pictures, each open on demand beyond the first few: a page of fourteen norms stays short
const galleryRow = (title, figures, open) => {
  const details = make("details", open ? { open: "" } : {}, make("summary", {}, title));
  const fill = () => { if (details.open && !details.querySelector(".gallery")) details.append(make("div", { class: "gallery" }, ...figures())); };
  details.addEventListener("toggle", fill);
  fill();
  return details;
};
const galleryParts = (group, lines) => {
  const { dataset } = group, names = data.classes[dataset], { labels } = data.pictures[dataset];
  const plain = indices => indices.map(index => picture(dataset, index, index in labels ? names[labels[index]] : `no. ${index}`));
  const parts = lines.map(({ line, wrong, images }, n) => galleryRow(`${line}: ${wrong} wrong`, () => images.map(image => mistake(dataset, names, image)), n < 3));
  if (group.known && group.lines.length > 1) {
    parts.unshift(galleryRow(`wrong with every norm: ${group.all_count}`, () => plain(group.all), true));
    for (const { line, alone, alone_count } of lines) parts.push(galleryRow(`wrong with ${line} alone: ${alone_count}`, () => plain(alone), false));
  }
  return parts;
};
const drawGallery = () => {
  const groups = data.galleries.filter(group => group.lines.some(({ line }) => hasNorm({ norm: data.runs.find(run => run.line === line)?.norm ?? line })) && FILTERS.every(([name]) => !state[name] || String(group[name]) === state[name]));
  const place = document.getElementById("pictures");
  tellPanel("gallery", groups.slice(0, 1), PANEL);
  place.replaceChildren();
  for (const group of groups.slice(0, 1)) {
    const { reason } = data.pictures[group.dataset];
    if (reason) place.append(make("p", {}, `The images cannot be shown: ${reason}`));
    // of several sessions, those of the same configuration stand below each other
    for (const other of groups.filter(one => PANEL.every(name => one[name] === group[name])))
      place.append(...galleryParts(other, other.lines.filter(({ line }) => hasNorm({ norm: data.runs.find(run => run.line === line)?.norm ?? line }))));
  }
};
