// The table, and the controls above it.

function fill(select, options, value) {
  if (select.options.length !== options.length) {
    select.replaceChildren(...options.map(([key, text]) => element("option", { value: key }, text)));
  }
  select.value = value;
}

const asOptions = (values) => values.map((value) => [value, value]);

function showControls() {
  fill(byId("metric"), asOptions(data.metrics), state.metric);
  fill(byId("base"), [["", "none"], ...asOptions(baselines())], state.base);
  fill(byId("family"), [["", "all"], ...asOptions(families)], state.family);
  fill(byId("axis"), data.axes.map((axis) => [axis.key, axis.name]), state.axis);
  fill(byId("a"), [["", "choose"], ...asOptions(labels)], state.a);
  fill(byId("b"), [["", "choose"], ...asOptions(labels)], state.b);
  if (byId("q").value !== state.q) byId("q").value = state.q;
}

function scoreCell(row, key) {
  const evaluation = evaluationOf(row, key);
  if (evaluation === "failed") return element("td", { class: "failed" }, element("span", { class: "figure" }, "failed"));
  if (evaluation === null) return gap("gap");
  const [value, mark, low, high, share] = evaluation;
  const isBest = mark === 1;
  const button = element("button", { type: "button", class: "open", "aria-haspopup": "dialog" });
  button.append(element("span", { class: "figure" }, formatScore(value)));
  if (isBest) button.append(ariaHidden("*", "mark"), visuallyHidden("best"));
  if (isBest && share !== undefined) button.append(element("span", { class: "share" }, percent(share), visuallyHidden("of the resamples")));
  if (mark === 2) button.append(ariaHidden("=", "mark"), visuallyHidden("tied with the best"));
  const below = belowOf(row, key, low, high);
  if (below) button.append(below);
  button.addEventListener("click", () => change({ row: labels[row], col: key }));
  return element("td", { class: isBest ? "best" : "" }, button);
}

function belowOf(row, key, low, high) {
  if (state.base) {
    if (state.base === labels[row]) return element("small", {}, "baseline");
    const test = versusBaseline(row, key);
    if (!test) return null;
    const { mark, meaning } = verdict(test);
    const hiddenText = visuallyHidden(`difference to the baseline, ${meaning}`);
    return element("small", {}, formatSigned(test.delta), ariaHidden(mark, "mark"), hiddenText);
  }
  return low === undefined ? null : element("small", {}, `${low.toFixed(3)}–${high.toFixed(3)}`);
}

function gap(kind) {
  return element("td", { class: kind }, ariaHidden("–", "figure"), visuallyHidden("not measured"));
}

function costCell(row, axis) {
  const value = leaderboard().costs[row][axis];
  if (value === null) return gap("cost gap");
  const isBusy = leaderboard().busy[row][axis];
  const text = `${isBusy ? "~" : ""}${formatAmount(value)}`;
  const td = element("td", { class: "cost" }, element("span", { class: "figure" }, text));
  if (leaderboard().front[row][axis]) td.append(ariaHidden("◆", "mark"), visuallyHidden("on the Pareto front"));
  if (isBusy) td.append(visuallyHidden("measured on a busy machine"));
  return td;
}

function rowNode(row) {
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, labels[row]),
    element("td", { class: "text" }, data.rows[row].family),
    ...columnKeys().map((key) => scoreCell(row, key)),
    ...data.axes.map((_, axis) => costCell(row, axis)),
  );
}

function showHeadings() {
  const [direction, key] = parseSort(state.sort);
  for (const th of document.querySelectorAll("#leaderboard thead th")) {
    const sorted = th.dataset.key === key;
    if (sorted) th.setAttribute("aria-sort", direction === "asc" ? "ascending" : "descending");
    else th.removeAttribute("aria-sort");
    th.querySelector(".arrow").textContent = sorted ? (direction === "asc" ? "↑" : "↓") : "";
  }
}

let tableKey = "";
function showTable() {
  const rows = shownRows();
  const key = JSON.stringify([state.metric, state.base, rows]);
  showHeadings();
  // an unchanged table keeps its elements, so that the focus returns to the button that opened the dialog
  if (key !== tableKey) byId("leaderboard").tBodies[0].replaceChildren(...rows.map(rowNode));
  tableKey = key;
  byId("caption").textContent = `${state.metric} and costs of each retriever`;
  byId("small").textContent = state.base ? `difference to ${state.base}` : "95 % interval";
  announce(rows.length);
}

function announce(count) {
  const [direction, key] = parseSort(state.sort);
  const order = `sorted by ${headingName(key)}, ${direction === "asc" ? "ascending" : "descending"}`;
  const against = state.base ? `, compared with ${state.base}` : "";
  const matches = count ? `${count} of ${labels.length} retrievers` : "No retriever matches";
  const text = `${matches}, ${state.metric}, ${order}${against}`;
  if (byId("status").textContent !== text) byId("status").textContent = text;
}

const headingName = (key) => headingOf(key).dataset.name;

function sortBy(key) {
  const [direction, before] = parseSort(state.sort);
  const first = ASCENDING_FIRST.includes(key) ? "asc" : "desc";
  const next = before === key ? (direction === "asc" ? "desc" : "asc") : first;
  change({ sort: `${next}.${key}` });
}

function prepareHeadings() {
  for (const th of document.querySelectorAll("#leaderboard thead th")) {
    const name = th.textContent;
    th.dataset.name = name;
    const button = element("button", { type: "button" }, name, ariaHidden("", "arrow"));
    button.addEventListener("click", () => sortBy(th.dataset.key));
    th.replaceChildren(button);
  }
}

function prepareControls() {
  for (const id of ["metric", "base", "family", "axis", "a", "b", "slice"]) {
    byId(id).addEventListener("change", () => change({ [id]: byId(id).value }));
  }
  byId("q").addEventListener("input", () => change({ q: byId("q").value }, true));
  for (const id of ["controls", "status", "plot", "compare", "theme"]) byId(id).hidden = false;
}

// Dark or light: the system's choice until the reader makes one, which a browser may refuse to store.
function prepareTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.style.colorScheme || (dark.matches ? "dark" : "light")) === "dark";
  const showChoice = () => (byId("theme").textContent = isDark() ? "Light theme" : "Dark theme");
  try {
    root.style.colorScheme = localStorage.getItem("theme") ?? "";
  } catch {
    root.style.colorScheme = "";
  }
  byId("theme").addEventListener("click", () => {
    root.style.colorScheme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.style.colorScheme);
    } catch {
      // the choice lasts as long as the page
    }
    showChoice();
  });
  dark.addEventListener("change", showChoice);
  showChoice();
}

function show() {
  showControls();
  showTable();
  showPlot();
  showComparison();
  showSlices();
  showEvaluation();
}

function start() {
  prepareHeadings();
  prepareControls();
  prepareTheme();
  prepareDialog();
  preparePlot();
  for (const event of ["popstate", "hashchange"]) {
    addEventListener(event, () => {
      readState();
      show();
    });
  }
  readState();
  show();
}
