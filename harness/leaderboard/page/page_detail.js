// The dialog of one evaluation, the comparison of two rows, and the slices of a dataset.

const MAX_QUERIES = 3;

// Headings are aligned with their columns: figures on the right, texts on the left.
function tableOf(caption, headings, rows) {
  const isText = (index) => rows[0]?.[index] instanceof Node && rows[0][index].classList.contains("text");
  const head = element(
    "tr",
    {},
    ...headings.map((text, index) => element("th", { scope: "col", class: isText(index) ? "text" : "score" }, text)),
  );
  const body = rows.map(([first, ...rest]) =>
    element("tr", {}, element("th", { scope: "row" }, first), ...rest.map((value) => (value instanceof Node ? value : element("td", {}, value)))),
  );
  const table = element("table", {}, element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": caption }, table);
}

// One evaluation

function description(row, key) {
  const [value, mark, low, high, share] = evaluationOf(row, key);
  const meaning = mark === 1 ? `, the best${share === undefined ? "" : ` in ${percent(share)} of the resamples`}` : mark === 2 ? ", tied with the best" : "";
  const interval = low === undefined ? "" : `, 95 % interval ${low.toFixed(3)} to ${high.toFixed(3)}`;
  return [`${state.metric} ${formatScore(value)}${meaning}${interval}.`, coverage(key), ...differenceText(row, key)];
}

function coverage(key) {
  if (key === MEAN) return `The mean over ${leaderboard().common.map((index) => names[index]).join(", ")}.`;
  const dataset = data.datasets[names.indexOf(key)];
  const counted = (n, noun) => (n === null ? [] : [`${n.toLocaleString("en-US")} ${noun}`]);
  const parts = dataset.parts > 1 ? [`${dataset.parts} parts`] : [];
  const split = dataset.split === null ? [] : [`${dataset.split} split`];
  return `${[...split, ...parts, ...counted(dataset.queries, "queries"), ...counted(dataset.documents, "documents")].join(", ")}.`;
}

function differenceText(row, key) {
  if (!state.base) return ["Choose a baseline above the table to see queries won, tied and lost against it."];
  if (state.base === labels[row]) return ["This is the baseline."];
  const test = versusBaseline(row, key);
  if (!test) return [`Its queries cannot be paired with those of ${state.base}.`];
  return [`Against ${state.base}: ${formatSigned(test.delta)}, ${verdict(test).meaning}, ${formatP(test.p)}.`];
}

function balance(row, key) {
  const test = versusBaseline(row, key);
  if (!test) return [];
  const bar = element("div", { class: "balance", "aria-hidden": "true" });
  for (const kind of ["won", "tied", "lost"]) {
    const part = element("span", { class: kind });
    part.style.flexGrow = test[kind];
    bar.append(part);
  }
  return [bar, element("p", { class: "counts" }, `${test.won} won, ${test.tied} tied, ${test.lost} lost`)];
}

function commandsOf(row, key) {
  const commands = key === MEAN ? [] : data.commands[row][names.indexOf(key)];
  if (!commands.length) return [];
  return [element("h3", {}, "Repeat the evaluation"), element("pre", { tabindex: 0 }, element("code", {}, commands.join("\n")))];
}

// The embedded queries of a dataset with this row's score minus the baseline's, or minus the mean of the other rows.
function distances(column, metric, row) {
  const index = column.rows.indexOf(row);
  const baseline = column.rows.indexOf(labels.indexOf(state.base));
  const isOnlyRow = column.rows.length < 2;
  return column.scores[metric].map((scores, query) => {
    const otherScores = scores.filter((value, other) => other !== index && value !== null);
    const mean = otherScores.reduce((sum, value) => sum + value, 0) / (otherScores.length || 1);
    const hasBaseline = baseline >= 0 && baseline !== index && scores[baseline] !== null;
    const reference = isOnlyRow ? 0 : hasBaseline ? scores[baseline] : mean;
    return { query, value: scores[index], reference, distance: scores[index] - reference };
  });
}

function queriesOf(row, key) {
  const column = data.details.columns[names.indexOf(key)];
  const metric = data.details.metrics.includes(state.metric) ? state.metric : data.details.metrics[0];
  if (!column?.scores[metric] || !column.rows.includes(row)) return [element("p", {}, "This page has no single queries of this evaluation.")];
  const scored = distances(column, metric, row).filter(({ value }) => value !== null);
  const isOnlyRow = column.rows.length < 2;
  const worst = scored.filter(({ distance }) => isOnlyRow || distance < 0).sort((a, b) => a.distance - b.distance);
  const best = scored.filter(({ distance }) => distance > 0).sort((a, b) => b.distance - a.distance);
  const list = (heading, queries) => {
    const nodes = queries.slice(0, MAX_QUERIES).map((query) => queryNode(column, metric, row, query));
    return [element("h3", {}, heading), ...(nodes.length ? nodes : [element("p", {}, "None.")])];
  };
  const note = element("p", { class: "small" }, selectionText(column, metric, row));
  return [...list("Worst queries", worst), ...list("Best queries", best), note];
}

function selectionText(column, metric, row) {
  const hasBaseline = column.rows.includes(labels.indexOf(state.base)) && state.base !== labels[row];
  const against = column.rows.length < 2 ? "" : hasBaseline ? ` against ${state.base}` : " against the mean of the other retrievers";
  const restriction = metric === state.metric ? "" : ` This page has single queries of ${metric} only.`;
  return (
    `By ${metric}${against}, among the ${column.queries.length} queries that this page has: for each retriever the ` +
    `${data.details.each} furthest below and above the mean of the others.${restriction}`
  );
}

function queryNode(column, metric, row, { query, value, reference, distance }) {
  const [id, text] = column.queries[query];
  const summary = element(
    "summary",
    {},
    element("span", { class: "query" }, text || `query ${id}`),
    element("small", {}, `${formatScore(value)} against ${formatScore(reference)} (${formatSigned(distance)})`),
  );
  const rows = column.rows.map((other, index) => [labels[other], ...firstDocumentOf(column, metric, query, index)]);
  rows.sort((a, b) => (b[0] === labels[row]) - (a[0] === labels[row]));
  return element("details", {}, summary, tableOf(`Query ${id}`, ["retriever", "score", "grade", "ranked first"], rows));
}

function firstDocumentOf(column, metric, query, index) {
  const value = column.scores[metric][query][index];
  const scoreText = value === null ? "–" : formatScore(value);
  const figures = (grade, ...first) => [scoreText, grade, element("td", { class: "text long" }, ...first)];
  if (!column.firsts) return figures("–", "not stored");
  const [documents, grades, rows] = column.firsts[query];
  if (rows[index] < 0) return figures("–", "nothing");
  const [id, text] = column.documents[documents[rows[index]]];
  const grade = grades[rows[index]];
  return figures(grade === null ? "unjudged" : String(grade), element("b", {}, id), ` ${text}`);
}

function showEvaluation() {
  const dialog = byId("evaluation");
  const row = labels.indexOf(state.row);
  const exists = row >= 0 && state.col && Array.isArray(evaluationOf(row, state.col));
  if (!exists) {
    if (dialog.open) dialog.close();
    return;
  }
  byId("evaluation-title").textContent = `${state.row} on ${state.col === MEAN ? "the mean" : state.col}`;
  byId("evaluation-body").replaceChildren(
    ...description(row, state.col).map((text) => element("p", {}, text)),
    ...balance(row, state.col),
    ...commandsOf(row, state.col),
    ...(state.col === MEAN ? [] : queriesOf(row, state.col)),
  );
  if (!dialog.open) dialog.showModal();
}

function prepareDialog() {
  const dialog = byId("evaluation");
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // a click outside of it
  });
  dialog.addEventListener("close", () => {
    if (state.row || state.col) change({ row: "", col: "" });
  });
}

// Two rows

function showComparison() {
  const [a, b] = [labels.indexOf(state.a), labels.indexOf(state.b)];
  if (a < 0 || b < 0 || a === b) {
    byId("compared").replaceChildren(element("p", { class: "small" }, "Choose two to see their differences in scores and configuration."));
    return;
  }
  byId("compared").replaceChildren(differences(a, b), configurations(a, b));
}

function differences(a, b) {
  const tests = columnKeys().map((key) => [key, versus(key, b, a)]);
  const scoreText = (row, key) => (valueOf(row, key) === null ? "–" : formatScore(valueOf(row, key)));
  const rows = tests.map(([key, test]) => [
    headingName(key),
    scoreText(a, key),
    scoreText(b, key),
    test ? formatSigned(test.delta) : "–",
    test ? `${test.won} / ${test.tied} / ${test.lost}` : "–",
    test ? `${formatP(test.p)}${test.p < ALPHA ? " significant" : ""}` : "–",
  ]);
  const caption = `${state.metric}: ${labels[b]} minus ${labels[a]}; queries won, tied and lost by ${labels[b]}; p adjusted over all comparisons`;
  return tableOf(caption, ["dataset", labels[a], labels[b], "difference", "W / T / L", "p"], rows);
}

function configurations(a, b) {
  const [first, second] = [data.rows[a].config, data.rows[b].config];
  const keys = [...new Set([...Object.keys(first), ...Object.keys(second)])].sort();
  // The keys of two classes mean different things: only the classes are compared.
  const isOfOtherClass = (key) => {
    const parents = key.split(".").slice(0, -1).map((_, depth, parts) => parts.slice(0, depth + 1).join("."));
    const targets = ["_target_", ...parents.map((parent) => `${parent}._target_`)].filter((target) => target !== key);
    return targets.some((target) => first[target] !== second[target]);
  };
  const differing = keys.filter((key) => first[key] !== second[key] && !isOfOtherClass(key));
  if (!differing.length) return element("p", {}, "The configurations are the same.");
  const value = (config, key) => element("td", { class: "text long" }, config[key] ?? "–");
  const rows = differing.map((key) => [key, value(first, key), value(second, key)]);
  return tableOf("Differences in configuration", ["key", labels[a], labels[b]], rows);
}

// Slices

function showSlices() {
  const metric = state.metric in data.slices ? state.metric : data.metrics[0];
  const slices = data.slices[metric];
  const datasets = [...new Set(slices.map(([dataset]) => names[dataset]))];
  byId("slices").hidden = !datasets.length;
  if (!datasets.length) return;
  const chosen = datasets.includes(state.slice) ? state.slice : datasets[0];
  byId("slice").replaceChildren();
  fill(byId("slice"), asOptions(datasets), chosen);
  byId("sliced").replaceChildren(...slices.filter(([dataset]) => names[dataset] === chosen).map((slice) => sliceNode(metric, slice)));
}

function sliceNode(metric, [, by, bins]) {
  const rows = labels.map((label, row) => [label, ...bins.map(([, , means, best]) => [means[row] ?? null, best.includes(row)])]);
  const shown = rows
    .filter(([, ...cells]) => cells.some(([value]) => value !== null))
    .map(([label, ...cells]) => [label, ...cells.map(([value, best]) => sliceCell(value, best))]);
  const counted = (count) => element("small", {}, ` ${count} ${count === 1 ? "query" : "queries"}`);
  const headings = bins.map(([name, count]) => element("span", {}, name, counted(count)));
  return tableOf(`${metric} by ${by}`, ["retriever", ...headings], shown);
}

function sliceCell(value, best) {
  if (value === null) return gap("gap");
  const td = element("td", { class: best ? "best" : "" }, element("span", { class: "figure" }, formatScore(value)));
  if (best) td.append(ariaHidden("*", "mark"), visuallyHidden("best"));
  return td;
}
