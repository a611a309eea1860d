// The plot of quality against one cost, with the Pareto front of each environment.

const SVG = "http://www.w3.org/2000/svg";
const FRAME = { left: 56, right: 16, top: 14, bottom: 44, height: 400 };
const MAX_NAME_LENGTH = 26;

function svgElement(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const axisOf = () => data.axes.findIndex((axis) => axis.key === state.axis);

function points() {
  const axis = axisOf();
  return shownRows()
    .map((row) => ({
      row,
      label: labels[row],
      cost: leaderboard().costs[row][axis],
      quality: leaderboard().means[row],
      front: Boolean(leaderboard().front[row][axis]),
      busy: Boolean(leaderboard().busy[row][axis]),
      environment: leaderboard().environment[row],
    }))
    .filter((point) => point.cost !== null && point.quality !== null);
}

// A linear or logarithmic scale with its ticks.
function scaleOf(values, from, to, logarithmic) {
  const transform = logarithmic ? Math.log10 : (value) => value;
  const [low, high] = [transform(Math.min(...values)), transform(Math.max(...values))];
  const margin = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
  const [begin, end] = [low - margin, high + margin];
  const position = (value) => from + ((transform(value) - begin) / (end - begin)) * (to - from);
  const ticks = (logarithmic ? logarithmicTicks : linearTicks)(begin, end);
  return { position, ticks };
}

function linearTicks(begin, end) {
  const rough = (end - begin) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.ceil(begin / step);
  return Array.from({ length: Math.floor(end / step) - first + 1 }, (_, n) => Number(((first + n) * step).toPrecision(12)));
}

function logarithmicTicks(begin, end) {
  const ticks = [];
  for (let power = Math.floor(begin); power <= end; power += 1) {
    for (const factor of [1, 2, 5]) {
      const value = Number(`${factor}e${power}`);
      if (Math.log10(value) >= begin && Math.log10(value) <= end) ticks.push(value);
    }
  }
  const powers = ticks.filter((value) => Number.isInteger(Math.log10(value)));
  return ticks.length > 7 && powers.length > 1 ? powers : ticks;
}

const formatTick = (value) =>
  value.toLocaleString("en-US", { maximumSignificantDigits: 3, notation: Math.abs(value) >= 10000 ? "compact" : "standard" });

function grid(svg, x, y, width) {
  const bottom = FRAME.height - FRAME.bottom;
  for (const value of y.ticks) {
    const position = y.position(value);
    svg.append(svgElement("line", { class: "grid", x1: FRAME.left, x2: width - FRAME.right, y1: position, y2: position }));
    svg.append(svgElement("text", { x: FRAME.left - 8, y: position + 4, "text-anchor": "end" }, formatTick(value)));
  }
  for (const value of x.ticks) {
    const position = x.position(value);
    svg.append(svgElement("line", { class: "grid", x1: position, x2: position, y1: FRAME.top, y2: bottom }));
    svg.append(svgElement("text", { x: position, y: bottom + 18, "text-anchor": "middle" }, formatTick(value)));
  }
  const axis = data.axes[axisOf()];
  const title = `${axis.name} (${axis.more ? "more" : "less"} is better)`;
  svg.append(svgElement("text", { class: "title", x: width - FRAME.right, y: FRAME.height - 6, "text-anchor": "end" }, title));
  svg.append(svgElement("text", { class: "title", x: 4, y: FRAME.height - 6 }, `↑ ${state.metric}`));
}

// One shape for each environment; a cross for several.
function shapeOf(point, x, y) {
  const kind = point.front ? "point front" : "point";
  const corners = { 1: [[-6, -6], [6, -6], [6, 6], [-6, 6]], 2: [[0, -7], [7, 6], [-7, 6]], 3: [[0, -8], [8, 0], [0, 8], [-8, 0]] };
  const shape = corners[point.environment % 4];
  if (point.environment === null) return svgElement("path", { class: "point", d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10` });
  if (!shape) return svgElement("circle", { class: kind, cx: x, cy: y, r: 6 });
  return svgElement("polygon", { class: kind, points: shape.map(([dx, dy]) => `${x + dx},${y + dy}`).join(" ") });
}

function descriptionOf(point) {
  const [, , low, high] = leaderboard().evaluations[point.row][data.means ? names.length : 0] ?? [];
  const interval = low === undefined ? "" : ` (${low.toFixed(3)} to ${high.toFixed(3)})`;
  const environment = leaderboard().environments[point.environment];
  return [
    point.label,
    `${state.metric} ${formatScore(point.quality)}${interval}`,
    `${data.axes[axisOf()].name} ${formatAmount(point.cost)}`,
    ...(point.front ? ["on the Pareto front"] : []),
    ...(point.busy ? ["measured on a busy machine"] : []),
    environment === undefined ? "measured in several environments" : `environment ${environment}`,
  ];
}

function pointNode(point, x, y) {
  const lines = descriptionOf(point);
  const group = svgElement("g", { class: "target", tabindex: 0, role: "img", "aria-label": lines.join(", ") });
  group.append(svgElement("circle", { class: "reach", cx: x, cy: y, r: 13 }), shapeOf(point, x, y));
  for (const event of ["mouseenter", "focus"]) group.addEventListener(event, () => showTip(lines, x, y));
  for (const event of ["mouseleave", "blur"]) group.addEventListener(event, hideTip);
  return group;
}

function showTip(lines, x, y) {
  const tip = byId("tip");
  tip.replaceChildren(...lines.map((line, index) => element(index ? "div" : "strong", {}, line)));
  tip.hidden = false;
  const picture = byId("picture");
  const left = Math.min(Math.max(x - tip.offsetWidth / 2, 0), Math.max(picture.clientWidth - tip.offsetWidth, 0));
  const above = y - tip.offsetHeight - 16;
  tip.style.left = `${picture.offsetLeft + left}px`;
  tip.style.top = `${picture.offsetTop + (above > 0 ? above : y + 18)}px`;
}

const hideTip = () => (byId("tip").hidden = true);

// Writes a name where it overlaps no other name, point or line; without such a position it is only in the point's tip.
function writeName(svg, point, x, y, occupied, width) {
  const name = point.label.length > MAX_NAME_LENGTH ? `${point.label.slice(0, MAX_NAME_LENGTH - 1)}…` : point.label;
  const text = svgElement("text", { class: point.front ? "name front" : "name" }, name);
  svg.append(text);
  const [nameWidth, nameHeight] = [text.getComputedTextLength() + 2, 15];
  for (const [left, top] of namePositions(x, y, nameWidth)) {
    const box = { left, top, right: left + nameWidth, bottom: top + nameHeight };
    const inside = box.left >= FRAME.left && box.right <= width && box.top >= 0 && box.bottom <= FRAME.height - FRAME.bottom;
    if (inside && !occupied.some((obstacle) => overlap(box, obstacle))) {
      text.setAttribute("x", left + 1);
      text.setAttribute("y", top + 11);
      occupied.push(box);
      return true;
    }
  }
  text.remove();
  return false;
}

function namePositions(x, y, nameWidth) {
  const sides = [x + 10, x - nameWidth - 10];
  const near = [...sides.map((left) => [left, y - 8]), [x - nameWidth / 2, y - 25], [x - nameWidth / 2, y + 10]];
  return [...near, ...[-25, 10].flatMap((down) => sides.map((left) => [left - Math.sign(left - x) * 4, y + down]))];
}

const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

// Draws the fronts' lines and returns small boxes along them, so that names do not overlap them.
function drawFronts(svg, placed) {
  const boxes = [];
  for (const environment of new Set(placed.map(({ point }) => point.environment))) {
    const line = placed
      .filter(({ point }) => point.front && point.environment === environment)
      .sort((a, b) => a.left - b.left);
    line.slice(1).forEach((to, index) => boxes.push(...boxesAlong(line[index], to)));
    const corners = line.map(({ left, top }) => `${left},${top}`).join(" ");
    if (line.length > 1) svg.append(svgElement("polyline", { class: "line", points: corners }));
  }
  return boxes;
}

function boxesAlong(from, to) {
  const count = Math.ceil(Math.hypot(to.left - from.left, to.top - from.top) / 6);
  return Array.from({ length: count }, (_, n) => {
    const [x, y] = [from.left + ((to.left - from.left) * n) / count, from.top + ((to.top - from.top) * n) / count];
    return { left: x - 2, right: x + 2, top: y - 2, bottom: y + 2 };
  });
}

function drawPlot(shown, width) {
  const label = `${state.metric} against ${data.axes[axisOf()].name} of ${shown.length} retrievers`;
  const svg = svgElement("svg", { width, height: FRAME.height, role: "group", "aria-label": label });
  byId("picture").replaceChildren(svg);
  const costs = shown.map((point) => point.cost);
  const logarithmic = Math.min(...costs) > 0 && Math.max(...costs) / Math.min(...costs) > 10;
  const x = scaleOf(costs, FRAME.left + 8, width - FRAME.right - 8, logarithmic);
  const y = scaleOf(shown.map((point) => point.quality), FRAME.height - FRAME.bottom - 4, FRAME.top + 4, false);
  grid(svg, x, y, width);
  const placed = shown.map((point) => ({ point, left: x.position(point.cost), top: y.position(point.quality) }));
  const occupied = drawFronts(svg, placed);
  occupied.push(...placed.map(({ left, top }) => ({ left: left - 8, right: left + 8, top: top - 8, bottom: top + 8 })));
  for (const { point, left, top } of placed) svg.append(pointNode(point, left, top));
  const frontFirst = [...placed].sort((a, b) => b.point.front - a.point.front);
  return frontFirst.filter(({ point, left, top }) => !writeName(svg, point, left, top, occupied, width)).length;
}

let plotKey = "";
function showPlot() {
  const width = byId("picture").clientWidth;
  const key = JSON.stringify([state.metric, state.axis, shownRows().sort(), width]);
  if (key === plotKey) return;
  plotKey = key;
  hideTip();
  const shown = points();
  const unnamed = shown.length ? drawPlot(shown, width) : (byId("picture").replaceChildren(), 0);
  byId("plotted").textContent = legendOf(shown, unnamed);
}

function legendOf(shown, unnamed) {
  if (!shown.length) return "None of the shown retrievers has both a mean and this cost.";
  const missing = shownRows().length - shown.length;
  const shapes = ["circles", "squares", "triangles", "diamonds"];
  const environments = leaderboard().environments.map((name, index) => `${shapes[index % 4]}: environment ${name}`);
  return [
    "Filled, on the line: the Pareto front; no retriever of the same environment is both better and cheaper.",
    ...(environments.length > 1 ? [`${environments.join("; ")}; a cross: several; they do not compare.`] : []),
    ...(unnamed ? [`${unnamed} names do not fit and are shown when the point is hovered or focused.`] : []),
    ...(missing ? [`${missing} without a mean or this cost are not drawn.`] : []),
  ].join(" ");
}

function preparePlot() {
  addEventListener("resize", showPlot);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
  });
}
