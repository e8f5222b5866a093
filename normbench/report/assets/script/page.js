"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const button = (text, act, attributes = {}) => {
  const made = make("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", act);
  return made;
};
const unique = values => [...new Set(values)];
const sum = values => values.reduce((total, value) => total + value, 0);
const mean = values => sum(values) / values.length;
const signed = (value, digits = 2) => (value > 0 ? "+" : "") + value.toFixed(digits);
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const several = data.sessions.length > 1;

// what is wide is scrolled inside its own box, which the keyboard reaches
const scrolled = (name, ...children) => make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, ...children);

// each section says by itself how it is drawn: once it comes into view, and again when the filters change
const sections = new Map();
const drawSection = id => {
  const section = sections.get(id);
  if (!section.stale) return;
  section.stale = false;
  section.draw();
};
// sections are as high as they will be once they are drawn: what lies above one is drawn before it is gone to
const belowBar = () => { document.documentElement.style.scrollPaddingTop = `${document.getElementById("filters").offsetHeight + 12}px`; };
const goTo = id => {
  for (const above of document.querySelectorAll("#report section[id]")) {
    if (sections.has(above.id)) drawSection(above.id);
    if (above.id === id) break;
  }
  belowBar();
  document.getElementById(id)?.scrollIntoView();
};
const near = new Set();
const watcher = new IntersectionObserver(entries => entries.forEach(({ target, isIntersecting }) => {
  if (!isIntersecting) { near.delete(target.id); return; }
  near.add(target.id);
  drawSection(target.id);
}), { rootMargin: "400px" });
// a section without items does not stand on the page
const addSection = (id, has, draw) => {
  const element = document.getElementById(id);
  if (!element) return;
  if (!has) { element.remove(); return; }
  sections.set(id, { draw, stale: true });
  watcher.observe(element);
};
const inView = id => {
  // below the bar of filters; and a section ends with a space
  const { top, bottom } = document.getElementById(id).getBoundingClientRect(), bar = document.getElementById("filters").getBoundingClientRect();
  return bottom - 64 > bar.bottom && top < innerHeight;
};
const redraw = () => {
  for (const section of sections.values()) section.stale = true;
  // what one sees at once, and what is close to it a moment later
  const seen = [...near].filter(inView);
  seen.forEach(drawSection);
  setTimeout(() => { for (const id of near) drawSection(id); });
};
const within = (id, selector) => document.querySelector(`#${id} ${selector}`);
