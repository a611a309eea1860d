// The page's state lives in the address behind #, so that a link or the back button brings back what was seen.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const labels = data.rows.map((row) => row.label);
const names = data.datasets.map((dataset) => dataset.name);
const families = [...new Set(data.rows.map((row) => row.family))].sort();
const MEAN = "@mean";
const ALPHA = 0.05;
const LESS = ["@label", "@family", "@latency_ms", "@index_mb"]; // sorted from the least when first chosen

const defaults = {
  metric: data.metrics[0],
  base: data.baseline ?? "",
  sort: `desc.${data.means ? MEAN : names[0]}`,
  family: "",
  q: "",
  row: "",
  col: "",
  axis: data.axes[0].key,
  a: "",
  b: "",
  slice: "",
};
let state = { ...defaults };

const at = (id) => document.getElementById(id);

// Text is only ever added as text: a retriever's name cannot become markup.
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const unseen = (text) => make("span", { class: "unseen" }, ` ${text}`);
const hidden = (text, kind) => make("span", { class: kind, "aria-hidden": "true" }, text);

const score = (value) => value.toFixed(4);
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;
const chance = (p) => (p < 0.00005 ? "p < 0.0001" : `p = ${p.toFixed(4)}`);

function amount(value) {
  if (value >= 100) return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
  return value.toFixed(value >= 10 ? 1 : 2);
}

// Figures

const board = () => data.boards[state.metric];
const columnOf = (key) => (key === MEAN ? names.length : names.indexOf(key));
const columnKeys = () => [...(data.means ? [MEAN] : []), ...names];
const cellOf = (row, key) => board().cells[row][columnOf(key)];

// A number, or null for a gap and a failure.
function valueOf(row, key) {
  const cell = cellOf(row, key);
  return Array.isArray(cell) ? cell[0] : null;
}

function figureOf(row, key) {
  if (key === "@label") return labels[row];
  if (key === "@family") return data.rows[row].family;
  const axis = data.axes.findIndex((one) => `@${one.key}` === key);
  if (axis >= 0) return board().costs[row][axis];
  return valueOf(row, key);
}

// The pairs of a column, in the order in which they were written.
function pairsOf(column) {
  const { rows } = column;
  if (data.anchor === null) return rows.flatMap((one, place) => rows.slice(place + 1).map((other) => [one, other]));
  return rows.includes(data.anchor) ? rows.filter((row) => row !== data.anchor).map((row) => [data.anchor, row]) : [];
}

for (const columns of Object.values(data.pairs)) {
  for (const column of columns.filter(Boolean)) {
    column.places = new Map(pairsOf(column).map(([one, other], place) => [`${one},${other}`, place]));
  }
}

// How one row does against another; null where their queries cannot be paired.
function versus(key, row, other, metric = state.metric) {
  const column = data.pairs[metric][columnOf(key)];
  if (!column || row === other) return null;
  const place = column.places.get(`${row},${other}`);
  const turned = column.places.get(`${other},${row}`);
  const found = place ?? turned;
  if (found === undefined) return null;
  const [won, lost] = [column.won[found], column.lost[found]];
  const told = { n: column.n, p: column.p[found], tied: column.n - won - lost };
  if (place !== undefined) return { ...told, won, lost, delta: column.delta[found] };
  return { ...told, won: lost, lost: won, delta: -column.delta[found] };
}

// Holm's correction: each family is a list of objects with `p`, which get `adjusted`.
function holm(family) {
  let most = 0;
  [...family]
    .sort((one, other) => one.p - other.p)
    .forEach((one, rank) => {
      most = Math.max(most, Math.min(1, (family.length - rank) * one.p));
      one.adjusted = most;
    });
  return family;
}

// Every row against the baseline on every column: one family, whatever is searched for.
const testsByBase = new Map();
function againstBase() {
  const key = JSON.stringify([state.metric, state.base]);
  if (!testsByBase.has(key)) {
    const base = labels.indexOf(state.base);
    const found = new Map();
    for (const column of base < 0 ? [] : columnKeys()) {
      labels.forEach((_, row) => {
        const told = versus(column, row, base);
        if (told) found.set(`${row},${column}`, told);
      });
    }
    holm([...found.values()]);
    testsByBase.set(key, found);
  }
  return testsByBase.get(key);
}

function verdict(told) {
  if (told.adjusted >= ALPHA) return { mark: "", said: "not significantly different" };
  return told.delta > 0
    ? { mark: "▲", said: "significantly above the baseline" }
    : { mark: "▼", said: "significantly below the baseline" };
}

// Which rows are shown, in their order

const split = (sort) => [sort.slice(0, sort.indexOf(".")), sort.slice(sort.indexOf(".") + 1)];

function shownRows() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = (row) => {
    const text = `${labels[row]} ${data.rows[row].family}`.toLowerCase();
    return (!state.family || data.rows[row].family === state.family) && words.every((word) => text.includes(word));
  };
  const [direction, key] = split(state.sort);
  const sign = direction === "desc" ? -1 : 1;
  return labels
    .map((_, row) => row)
    .filter(wanted)
    .sort((one, other) => compared(figureOf(one, key), figureOf(other, key), sign) || one - other);
}

// Gaps are last in either direction.
function compared(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one === "string") return sign * (one < other ? -1 : Number(one > other));
  return sign * (one - other);
}

// State and address

const choices = {
  metric: (value) => data.metrics.includes(value),
  base: (value) => value === "" || bases().includes(value),
  sort: (value) => /^(asc|desc)\./.test(value) && Boolean(heading(split(value)[1])),
  family: (value) => value === "" || families.includes(value),
  q: () => true,
  row: (value) => labels.includes(value),
  col: (value) => columnKeys().includes(value),
  axis: (value) => data.axes.some((axis) => axis.key === value),
  a: (value) => labels.includes(value),
  b: (value) => labels.includes(value),
  slice: (value) => names.includes(value),
};

const bases = () => (data.anchor === null ? labels : [labels[data.anchor]]);
const heading = (key) => [...document.querySelectorAll("#board thead th")].find((th) => th.dataset.key === key);

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  state = { ...defaults };
  for (const [name, allowed] of Object.entries(choices)) {
    const value = given.get(name);
    if (value !== null && allowed(value)) state[name] = value;
  }
}

function write(replace) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) if (value !== defaults[name]) given.set(name, value);
  history[replace ? "replaceState" : "pushState"](null, "", `#${given}`);
}

// A letter typed is no step to go back to.
function change(changes, replace = false) {
  state = { ...state, ...changes };
  write(replace);
  show();
}
