// The page's state is stored in the URL's fragment, so that links and the back button restore it.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const labels = data.rows.map((row) => row.label);
const names = data.datasets.map((dataset) => dataset.name);
const families = [...new Set(data.rows.map((row) => row.family))].sort();
const MEAN = "@mean";
const ALPHA = 0.05;
const ASCENDING_FIRST = ["@label", "@family", "@latency_ms", "@index_mb"]; // sorted in ascending order when first chosen

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

const byId = (id) => document.getElementById(id);

// Text is only added as text nodes: a retriever's name cannot become markup.
function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const visuallyHidden = (text) => element("span", { class: "visually-hidden" }, ` ${text}`);
const ariaHidden = (text, kind) => element("span", { class: kind, "aria-hidden": "true" }, text);

const formatScore = (value) => value.toFixed(4);
const formatSigned = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;
const percent = (share) => `${Math.round(100 * share)} %`;
const formatP = (p) => (p < 0.00005 ? "p < 0.0001" : `p = ${p.toFixed(4)}`);

function formatAmount(value) {
  if (value >= 100) return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
  return value.toFixed(value >= 10 ? 1 : 2);
}

// Figures

const leaderboard = () => data.leaderboards[state.metric];
const columnOf = (key) => (key === MEAN ? names.length : names.indexOf(key));
const columnKeys = () => [...(data.means ? [MEAN] : []), ...names];
const evaluationOf = (row, key) => leaderboard().evaluations[row][columnOf(key)];

// A number, or null for a gap and a failure.
function valueOf(row, key) {
  const evaluation = evaluationOf(row, key);
  return Array.isArray(evaluation) ? evaluation[0] : null;
}

function figureOf(row, key) {
  if (key === "@label") return labels[row];
  if (key === "@family") return data.rows[row].family;
  const axis = data.axes.findIndex((each) => `@${each.key}` === key);
  if (axis >= 0) return leaderboard().costs[row][axis];
  return valueOf(row, key);
}

// The pairs of a column, in the order of the stored tests.
function pairsOf(column) {
  const { rows } = column;
  if (data.anchor === null) return rows.flatMap((first, index) => rows.slice(index + 1).map((second) => [first, second]));
  return rows.includes(data.anchor) ? rows.filter((row) => row !== data.anchor).map((row) => [data.anchor, row]) : [];
}

for (const columns of Object.values(data.pairs)) {
  for (const column of columns.filter(Boolean)) {
    column.indexOfPair = new Map(pairsOf(column).map(([first, second], index) => [`${first},${second}`, index]));
  }
}

// The difference of one row to another; null where their queries cannot be paired.
function versus(key, row, other, metric = state.metric) {
  const column = data.pairs[metric][columnOf(key)];
  if (!column || row === other) return null;
  const forward = column.indexOfPair.get(`${row},${other}`);
  const index = forward ?? column.indexOfPair.get(`${other},${row}`);
  if (index === undefined) return null;
  const [won, lost] = [column.won[index], column.lost[index]];
  const test = { n: column.n, p: column.p[index], tied: column.n - won - lost };
  if (forward !== undefined) return { ...test, won, lost, delta: column.delta[index] };
  return { ...test, won: lost, lost: won, delta: -column.delta[index] };
}

// The difference of a row to the chosen baseline; null without one.
const versusBaseline = (row, key) => (state.base ? versus(key, row, labels.indexOf(state.base)) : null);

function verdict(test) {
  if (test.p >= ALPHA) return { mark: "", meaning: "not significantly different" };
  return test.delta > 0
    ? { mark: "▲", meaning: "significantly above the baseline" }
    : { mark: "▼", meaning: "significantly below the baseline" };
}

// Filtering and sorting

const parseSort = (sort) => [sort.slice(0, sort.indexOf(".")), sort.slice(sort.indexOf(".") + 1)];

function shownRows() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (row) => {
    const text = `${labels[row]} ${data.rows[row].family}`.toLowerCase();
    return (!state.family || data.rows[row].family === state.family) && words.every((word) => text.includes(word));
  };
  const [direction, key] = parseSort(state.sort);
  const sign = direction === "desc" ? -1 : 1;
  return labels
    .map((_, row) => row)
    .filter(matches)
    .sort((left, right) => compareFigures(figureOf(left, key), figureOf(right, key), sign) || left - right);
}

// Gaps are last in either direction.
function compareFigures(left, right, sign) {
  if (left === null || right === null) return (left === null) - (right === null);
  if (typeof left === "string") return sign * (left < right ? -1 : Number(left > right));
  return sign * (left - right);
}

// State and URL

const isAllowed = {
  metric: (value) => data.metrics.includes(value),
  base: (value) => value === "" || baselines().includes(value),
  sort: (value) => /^(asc|desc)\./.test(value) && Boolean(headingOf(parseSort(value)[1])),
  family: (value) => value === "" || families.includes(value),
  q: () => true,
  row: (value) => labels.includes(value),
  col: (value) => columnKeys().includes(value),
  axis: (value) => data.axes.some((axis) => axis.key === value),
  a: (value) => labels.includes(value),
  b: (value) => labels.includes(value),
  slice: (value) => names.includes(value),
};

const baselines = () => (data.anchor === null ? labels : [labels[data.anchor]]);
const headingOf = (key) => [...document.querySelectorAll("#leaderboard thead th")].find((th) => th.dataset.key === key);

function readState() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  state = { ...defaults };
  for (const [name, allows] of Object.entries(isAllowed)) {
    const value = parameters.get(name);
    if (value !== null && allows(value)) state[name] = value;
  }
}

function writeState(replace) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) if (value !== defaults[name]) parameters.set(name, value);
  history[replace ? "replaceState" : "pushState"](null, "", `#${parameters}`);
}

// A typed letter replaces the history entry instead of adding one.
function change(changes, replace = false) {
  state = { ...state, ...changes };
  writeState(replace);
  show();
}
