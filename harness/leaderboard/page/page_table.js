// The table, and the controls above it.

function fill(select, options, value) {
  if (select.options.length !== options.length) {
    select.replaceChildren(...options.map(([key, text]) => make("option", { value: key }, text)));
  }
  select.value = value;
}

const own = (values) => values.map((value) => [value, value]);

function showControls() {
  fill(at("metric"), own(data.metrics), state.metric);
  fill(at("base"), [["", "none"], ...own(bases())], state.base);
  fill(at("family"), [["", "all"], ...own(families)], state.family);
  fill(at("axis"), data.axes.map((axis) => [axis.key, axis.name]), state.axis);
  fill(at("a"), [["", "choose"], ...own(labels)], state.a);
  fill(at("b"), [["", "choose"], ...own(labels)], state.b);
  if (at("q").value !== state.q) at("q").value = state.q;
}

function scoreCell(row, key) {
  const cell = cellOf(row, key);
  if (cell === "failed") return make("td", { class: "failed" }, make("span", { class: "figure" }, "failed"));
  if (cell === null) return gap("gap");
  const [value, mark, low, high] = cell;
  const best = mark === 1;
  const button = make("button", { type: "button", class: "open", "aria-haspopup": "dialog" });
  button.append(make("span", { class: "figure" }, score(value)));
  if (best) button.append(hidden("*", "mark"), unseen("best"));
  if (mark === 2) button.append(hidden("=", "mark"), unseen("not significantly below the best"));
  const below = belowOf(row, key, low, high);
  if (below) button.append(below);
  button.addEventListener("click", () => change({ row: labels[row], col: key }));
  return make("td", { class: best ? "best" : "" }, button);
}

function belowOf(row, key, low, high) {
  if (state.base) {
    if (state.base === labels[row]) return make("small", {}, "baseline");
    const told = againstBase().get(`${row},${key}`);
    if (!told) return null;
    const { mark, said } = verdict(told);
    return make("small", {}, signed(told.delta), hidden(mark, "mark"), unseen(`to the baseline, ${said}`));
  }
  return low === undefined ? null : make("small", {}, `${low.toFixed(3)}–${high.toFixed(3)}`);
}

function gap(kind) {
  return make("td", { class: kind }, hidden("–", "figure"), unseen("not measured"));
}

function costCell(row, axis) {
  const value = board().costs[row][axis];
  if (value === null) return gap("cost gap");
  const td = make("td", { class: "cost" }, make("span", { class: "figure" }, amount(value)));
  if (board().front[row][axis]) td.append(hidden("◆", "mark"), unseen("on the Pareto front"));
  return td;
}

function rowNode(row) {
  return make(
    "tr",
    {},
    make("th", { scope: "row" }, labels[row]),
    make("td", { class: "text" }, data.rows[row].family),
    ...columnKeys().map((key) => scoreCell(row, key)),
    ...data.axes.map((_, axis) => costCell(row, axis)),
  );
}

function showHeadings() {
  const [direction, key] = split(state.sort);
  for (const th of document.querySelectorAll("#board thead th")) {
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
  // a table that is the same keeps its cells, so that the one whose queries were closed has the focus again
  if (key !== tableKey) at("board").tBodies[0].replaceChildren(...rows.map(rowNode));
  tableKey = key;
  at("caption").textContent = `${state.metric} and costs of each retriever`;
  at("small").textContent = state.base ? `difference to ${state.base}` : "95 % interval";
  announce(rows.length);
}

function announce(count) {
  const [direction, key] = split(state.sort);
  const order = `sorted by ${headingName(key)}, ${direction === "asc" ? "ascending" : "descending"}`;
  const against = state.base ? `, compared with ${state.base}` : "";
  const found = count ? `${count} of ${labels.length} retrievers` : "No retriever matches";
  const text = `${found}, ${state.metric}, ${order}${against}`;
  if (at("said").textContent !== text) at("said").textContent = text;
}

const headingName = (key) => heading(key).dataset.name;

function sortBy(key) {
  const [direction, before] = split(state.sort);
  const first = LESS.includes(key) ? "asc" : "desc";
  const next = before === key ? (direction === "asc" ? "desc" : "asc") : first;
  change({ sort: `${next}.${key}` });
}

function prepareHeadings() {
  for (const th of document.querySelectorAll("#board thead th")) {
    const name = th.textContent;
    th.dataset.name = name;
    const button = make("button", { type: "button" }, name, hidden("", "arrow"));
    button.addEventListener("click", () => sortBy(th.dataset.key));
    th.replaceChildren(button);
  }
}

function prepareControls() {
  for (const id of ["metric", "base", "family", "axis", "a", "b", "slice"]) {
    at(id).addEventListener("change", () => change({ [id]: at(id).value }));
  }
  at("q").addEventListener("input", () => change({ q: at("q").value }, true));
  for (const id of ["controls", "said", "plot", "compare", "theme"]) at(id).hidden = false;
}

// Dark or light: the system's choice until the reader makes one, which a browser may refuse to keep.
function prepareTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.style.colorScheme || (dark.matches ? "dark" : "light")) === "dark";
  const say = () => (at("theme").textContent = isDark() ? "Light theme" : "Dark theme");
  try {
    root.style.colorScheme = localStorage.getItem("theme") ?? "";
  } catch {
    root.style.colorScheme = "";
  }
  at("theme").addEventListener("click", () => {
    root.style.colorScheme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.style.colorScheme);
    } catch {
      // the choice lasts as long as the page
    }
    say();
  });
  dark.addEventListener("change", say);
  say();
}

function show() {
  showControls();
  showTable();
  showPlot();
  showComparison();
  showSlices();
  showCell();
}

function start() {
  prepareHeadings();
  prepareControls();
  prepareTheme();
  prepareDialog();
  preparePlot();
  for (const event of ["popstate", "hashchange"]) {
    addEventListener(event, () => {
      read();
      show();
    });
  }
  read();
  show();
}
