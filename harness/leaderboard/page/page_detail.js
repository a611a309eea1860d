// What lies behind a cell, two rows side by side, and the slices of a dataset.

const LIST = 3;

// A heading stands over its column's figures on the right, over texts on the left.
function tableOf(caption, headings, rows) {
  const kind = (place) => rows[0]?.[place] instanceof Node && rows[0][place].classList.contains("text") ? "text" : "score";
  const head = make("tr", {}, ...headings.map((text, place) => make("th", { scope: "col", class: kind(place) }, text)));
  const body = rows.map(([first, ...rest]) =>
    make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((value) => (value instanceof Node ? value : make("td", {}, value)))),
  );
  const table = make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...body));
  return make("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": caption }, table);
}

// One cell

function facts(row, key) {
  const [value, mark, low, high] = cellOf(row, key);
  const said = mark === 1 ? ", the best" : mark === 2 ? ", not significantly below the best" : "";
  const interval = low === undefined ? "" : `, 95 % interval ${low.toFixed(3)} to ${high.toFixed(3)}`;
  return [`${state.metric} ${score(value)}${said}${interval}.`, coverage(key), ...againstText(row, key)];
}

function coverage(key) {
  if (key === MEAN) return `The mean over ${board().common.map((place) => names[place]).join(", ")}.`;
  const dataset = data.datasets[names.indexOf(key)];
  const counted = (n, what) => (n === null ? [] : [`${n.toLocaleString("en-US")} ${what}`]);
  const parts = dataset.parts > 1 ? [`${dataset.parts} parts`] : [];
  const split = dataset.split === null ? [] : [`${dataset.split} split`];
  return `${[...split, ...parts, ...counted(dataset.queries, "queries"), ...counted(dataset.documents, "documents")].join(", ")}.`;
}

function againstText(row, key) {
  if (!state.base) return ["Choose a baseline above the table to see queries won, tied and lost against it."];
  if (state.base === labels[row]) return ["This is the baseline."];
  const told = againstBase().get(`${row},${key}`);
  if (!told) return [`Its queries cannot be paired with those of ${state.base}.`];
  return [`Against ${state.base}: ${signed(told.delta)}, ${verdict(told).said}, ${chance(told.adjusted)} (Holm).`];
}

function balance(row, key) {
  const told = state.base ? againstBase().get(`${row},${key}`) : null;
  if (!told) return [];
  const bar = make("div", { class: "balance", "aria-hidden": "true" });
  for (const kind of ["won", "tied", "lost"]) {
    const part = make("span", { class: kind });
    part.style.flexGrow = told[kind];
    bar.append(part);
  }
  return [bar, make("p", { class: "counts" }, `${told.won} won, ${told.tied} tied, ${told.lost} lost`)];
}

function commandsOf(row, key) {
  const commands = key === MEAN ? [] : data.commands[row][names.indexOf(key)];
  if (!commands.length) return [];
  return [make("h3", {}, "Repeat it"), make("pre", { tabindex: 0 }, make("code", {}, commands.join("\n")))];
}

// The kept queries of a dataset with this row's score minus the baseline's, or minus the mean of the other rows.
function distances(column, metric, row) {
  const place = column.rows.indexOf(row);
  const base = column.rows.indexOf(labels.indexOf(state.base));
  const alone = column.rows.length < 2;
  return column.scores[metric].map((scores, query) => {
    const others = scores.filter((value, other) => other !== place && value !== null);
    const mean = others.reduce((sum, value) => sum + value, 0) / (others.length || 1);
    const reference = alone ? 0 : base >= 0 && base !== place && scores[base] !== null ? scores[base] : mean;
    return { query, own: scores[place], reference, distance: scores[place] - reference };
  });
}

function queriesOf(row, key) {
  const column = data.details.columns[names.indexOf(key)];
  const metric = data.details.metrics.includes(state.metric) ? state.metric : data.details.metrics[0];
  if (!column?.scores[metric] || !column.rows.includes(row)) return [make("p", {}, "No single queries of this cell are kept here.")];
  const found = distances(column, metric, row).filter((one) => one.own !== null);
  const alone = column.rows.length < 2;
  const worst = found.filter((one) => alone || one.distance < 0).sort((one, other) => one.distance - other.distance);
  const best = found.filter((one) => one.distance > 0).sort((one, other) => other.distance - one.distance);
  const list = (heading, few) => [
    make("h3", {}, heading),
    ...(few.length ? few.slice(0, LIST).map((one) => queryNode(column, metric, row, one)) : [make("p", {}, "None.")]),
  ];
  return [...list("Worst queries", worst), ...list("Best queries", best), make("p", { class: "small" }, keptText(column, metric, row))];
}

function keptText(column, metric, row) {
  const base = column.rows.includes(labels.indexOf(state.base)) && state.base !== labels[row];
  const against = column.rows.length < 2 ? "" : base ? ` against ${state.base}` : " against the mean of the other retrievers";
  const other = metric === state.metric ? "" : ` This page keeps single queries of ${metric} only.`;
  return (
    `By ${metric}${against}, among the ${column.queries.length} queries that this page keeps: for each retriever the ` +
    `${data.details.each} furthest below and above the mean of the others.${other}`
  );
}

function queryNode(column, metric, row, { query, own, reference, distance }) {
  const [id, text] = column.queries[query];
  const summary = make(
    "summary",
    {},
    make("span", { class: "query" }, text || `query ${id}`),
    make("small", {}, `${score(own)} against ${score(reference)} (${signed(distance)})`),
  );
  const rows = column.rows.map((one, place) => [labels[one], ...rankedOf(column, metric, query, place)]);
  rows.sort((one, other) => (other[0] === labels[row]) - (one[0] === labels[row]));
  return make("details", {}, summary, tableOf(`Query ${id}`, ["retriever", "score", "grade", "ranked first"], rows));
}

function rankedOf(column, metric, query, place) {
  const value = column.scores[metric][query][place];
  const shown = value === null ? "–" : score(value);
  const told = (grade, ...first) => [shown, grade, make("td", { class: "text long" }, ...first)];
  if (!column.firsts) return told("–", "not kept");
  const [documents, grades, rows] = column.firsts[query];
  if (rows[place] < 0) return told("–", "nothing");
  const [id, text] = column.documents[documents[rows[place]]];
  const grade = grades[rows[place]];
  return told(grade === null ? "not judged" : String(grade), make("b", {}, id), ` ${text}`);
}

function showCell() {
  const dialog = at("cell");
  const row = labels.indexOf(state.row);
  const there = row >= 0 && state.col && Array.isArray(cellOf(row, state.col));
  if (!there) {
    if (dialog.open) dialog.close();
    return;
  }
  at("cell-title").textContent = `${state.row} on ${state.col === MEAN ? "the mean" : state.col}`;
  at("cell-body").replaceChildren(
    ...facts(row, state.col).map((text) => make("p", {}, text)),
    ...balance(row, state.col),
    ...commandsOf(row, state.col),
    ...(state.col === MEAN ? [] : queriesOf(row, state.col)),
  );
  if (!dialog.open) dialog.showModal();
}

function prepareDialog() {
  const dialog = at("cell");
  at("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  dialog.addEventListener("close", () => {
    if (state.row || state.col) change({ row: "", col: "" });
  });
}

// Two rows

function showComparison() {
  const [a, b] = [labels.indexOf(state.a), labels.indexOf(state.b)];
  if (a < 0 || b < 0 || a === b) {
    at("compared").replaceChildren(make("p", { class: "small" }, "Choose two to see their differences in scores and configuration."));
    return;
  }
  at("compared").replaceChildren(differences(a, b), configurations(a, b));
}

function differences(a, b) {
  const told = columnKeys().map((key) => [key, versus(key, a, b)]);
  holm(told.map(([, one]) => one).filter(Boolean));
  const shown = (row, key) => (valueOf(row, key) === null ? "–" : score(valueOf(row, key)));
  const rows = told.map(([key, one]) => [
    headingName(key),
    shown(a, key),
    shown(b, key),
    one ? signed(one.delta) : "–",
    one ? `${one.won} / ${one.tied} / ${one.lost}` : "–",
    one ? `${chance(one.adjusted)}${one.adjusted < ALPHA ? " significant" : ""}` : "–",
  ]);
  const caption = `${state.metric}: ${labels[a]} minus ${labels[b]}; queries won, tied and lost; p by Holm over these rows`;
  return tableOf(caption, ["dataset", labels[a], labels[b], "difference", "W / T / L", "p"], rows);
}

function configurations(a, b) {
  const [one, other] = [data.rows[a].config, data.rows[b].config];
  const keys = [...new Set([...Object.keys(one), ...Object.keys(other)])].sort();
  const differing = keys.filter((key) => one[key] !== other[key]);
  if (!differing.length) return make("p", {}, "The configurations are the same.");
  const value = (config, key) => make("td", { class: "text long" }, config[key] ?? "–");
  const rows = differing.map((key) => [key, value(one, key), value(other, key)]);
  return tableOf("Differences in configuration", ["key", labels[a], labels[b]], rows);
}

// Slices

function showSlices() {
  const metric = state.metric in data.slices ? state.metric : data.metrics[0];
  const found = data.slices[metric];
  const datasets = [...new Set(found.map(([dataset]) => names[dataset]))];
  at("slices").hidden = !datasets.length;
  if (!datasets.length) return;
  const chosen = datasets.includes(state.slice) ? state.slice : datasets[0];
  at("slice").replaceChildren();
  fill(at("slice"), own(datasets), chosen);
  at("sliced").replaceChildren(...found.filter(([dataset]) => names[dataset] === chosen).map((one) => sliceNode(metric, one)));
}

function sliceNode(metric, [, by, bins]) {
  const rows = labels.map((label, row) => [label, ...bins.map(([, , means, best]) => [means[row] ?? null, best.includes(row)])]);
  const shown = rows
    .filter(([, ...cells]) => cells.some(([value]) => value !== null))
    .map(([label, ...cells]) => [label, ...cells.map(([value, best]) => sliceCell(value, best))]);
  const counted = (count) => make("small", {}, ` ${count} ${count === 1 ? "query" : "queries"}`);
  const headings = bins.map(([name, count]) => make("span", {}, name, counted(count)));
  return tableOf(`${metric} by ${by}`, ["retriever", ...headings], shown);
}

function sliceCell(value, best) {
  if (value === null) return gap("gap");
  const td = make("td", { class: best ? "best" : "" }, make("span", { class: "figure" }, score(value)));
  if (best) td.append(hidden("*", "mark"), unseen("best"));
  return td;
}
