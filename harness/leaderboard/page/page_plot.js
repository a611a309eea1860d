// Quality against one cost, with the Pareto front of each environment.

const SVG = "http://www.w3.org/2000/svg";
const FRAME = { left: 56, right: 16, top: 14, bottom: 44, height: 400 };
const LONGEST = 26;

function draw(tag, attributes, ...children) {
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
      cost: board().costs[row][axis],
      quality: board().means[row],
      front: Boolean(board().front[row][axis]),
      environment: board().environment[row],
    }))
    .filter((point) => point.cost !== null && point.quality !== null);
}

// Costs spread over orders of magnitude are drawn by their logarithm.
function scaleOf(values, from, to, logarithmic) {
  const of = logarithmic ? Math.log10 : (value) => value;
  const [low, high] = [of(Math.min(...values)), of(Math.max(...values))];
  const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
  const [begin, end] = [low - room, high + room];
  const place = (value) => from + ((of(value) - begin) / (end - begin)) * (to - from);
  const ticks = (logarithmic ? powers : steps)(begin, end);
  return { place, ticks };
}

function steps(begin, end) {
  const rough = (end - begin) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.ceil(begin / step);
  return Array.from({ length: Math.floor(end / step) - first + 1 }, (_, n) => Number(((first + n) * step).toPrecision(12)));
}

function powers(begin, end) {
  const found = [];
  for (let power = Math.floor(begin); power <= end; power += 1) {
    for (const factor of [1, 2, 5]) {
      const value = Number(`${factor}e${power}`);
      if (Math.log10(value) >= begin && Math.log10(value) <= end) found.push(value);
    }
  }
  const whole = found.filter((value) => Number.isInteger(Math.log10(value)));
  return found.length > 7 && whole.length > 1 ? whole : found;
}

const short = (value) =>
  value.toLocaleString("en-US", { maximumSignificantDigits: 3, notation: Math.abs(value) >= 10000 ? "compact" : "standard" });

function grid(svg, x, y, width) {
  const bottom = FRAME.height - FRAME.bottom;
  for (const value of y.ticks) {
    const place = y.place(value);
    svg.append(draw("line", { class: "grid", x1: FRAME.left, x2: width - FRAME.right, y1: place, y2: place }));
    svg.append(draw("text", { x: FRAME.left - 8, y: place + 4, "text-anchor": "end" }, short(value)));
  }
  for (const value of x.ticks) {
    const place = x.place(value);
    svg.append(draw("line", { class: "grid", x1: place, x2: place, y1: FRAME.top, y2: bottom }));
    svg.append(draw("text", { x: place, y: bottom + 18, "text-anchor": "middle" }, short(value)));
  }
  const axis = data.axes[axisOf()];
  const said = `${axis.name} (${axis.more ? "more" : "less"} is better)`;
  svg.append(draw("text", { class: "title", x: width - FRAME.right, y: FRAME.height - 6, "text-anchor": "end" }, said));
  svg.append(draw("text", { class: "title", x: 4, y: FRAME.height - 6 }, `↑ ${state.metric}`));
}

// One shape for each environment: what has another shape was measured elsewhere.
function shapeOf(point, x, y) {
  const kind = point.front ? "point front" : "point";
  const corners = { 1: [[-6, -6], [6, -6], [6, 6], [-6, 6]], 2: [[0, -7], [7, 6], [-7, 6]], 3: [[0, -8], [8, 0], [0, 8], [-8, 0]] };
  const own = corners[point.environment % 4];
  if (point.environment === null) return draw("path", { class: "point", d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10` });
  if (!own) return draw("circle", { class: kind, cx: x, cy: y, r: 6 });
  return draw("polygon", { class: kind, points: own.map(([dx, dy]) => `${x + dx},${y + dy}`).join(" ") });
}

function tellingOf(point) {
  const cell = data.means ? board().cells[point.row][names.length] : board().cells[point.row][0];
  const interval = cell?.[2] === undefined ? "" : ` (${cell[2].toFixed(3)} to ${cell[3].toFixed(3)})`;
  const environment = board().environments[point.environment];
  return [
    point.label,
    `${state.metric} ${score(point.quality)}${interval}`,
    `${data.axes[axisOf()].name} ${amount(point.cost)}`,
    ...(point.front ? ["on the Pareto front"] : []),
    environment === undefined ? "measured in several environments" : `environment ${environment}`,
  ];
}

function pointNode(point, x, y) {
  const lines = tellingOf(point);
  const group = draw("g", { class: "target", tabindex: 0, role: "img", "aria-label": lines.join(", ") });
  group.append(draw("circle", { class: "reach", cx: x, cy: y, r: 13 }), shapeOf(point, x, y));
  for (const event of ["mouseenter", "focus"]) group.addEventListener(event, () => tell(lines, x, y));
  for (const event of ["mouseleave", "blur"]) group.addEventListener(event, untell);
  return group;
}

function tell(lines, x, y) {
  const tip = at("tip");
  tip.replaceChildren(...lines.map((line, place) => make(place ? "div" : "strong", {}, line)));
  tip.hidden = false;
  const picture = at("picture");
  const left = Math.min(Math.max(x - tip.offsetWidth / 2, 0), Math.max(picture.clientWidth - tip.offsetWidth, 0));
  const above = y - tip.offsetHeight - 16;
  tip.style.left = `${picture.offsetLeft + left}px`;
  tip.style.top = `${picture.offsetTop + (above > 0 ? above : y + 18)}px`;
}

const untell = () => (at("tip").hidden = true);

// Names stand where they cover no other name, no point and no line; one that finds no such place is only in the point's tip.
function nameNode(svg, point, x, y, taken, width) {
  const name = point.label.length > LONGEST ? `${point.label.slice(0, LONGEST - 1)}…` : point.label;
  const text = draw("text", { class: point.front ? "name front" : "name" }, name);
  svg.append(text);
  const [long, high] = [text.getComputedTextLength() + 2, 15];
  for (const [left, top] of placesFor(x, y, long)) {
    const box = { left, top, right: left + long, bottom: top + high };
    const inside = box.left >= FRAME.left && box.right <= width && box.top >= 0 && box.bottom <= FRAME.height - FRAME.bottom;
    if (inside && !taken.some((other) => overlap(box, other))) {
      text.setAttribute("x", left + 1);
      text.setAttribute("y", top + 11);
      taken.push(box);
      return true;
    }
  }
  text.remove();
  return false;
}

function placesFor(x, y, long) {
  const sides = [x + 10, x - long - 10];
  const near = [...sides.map((left) => [left, y - 8]), [x - long / 2, y - 25], [x - long / 2, y + 10]];
  return [...near, ...[-25, 10].flatMap((down) => sides.map((left) => [left - Math.sign(left - x) * 4, y + down]))];
}

const overlap = (one, other) =>
  one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;

// Draws the lines; gives small boxes along them, which names keep clear of.
function fronts(svg, placed) {
  const boxes = [];
  for (const environment of new Set(placed.map(({ point }) => point.environment))) {
    const line = placed
      .filter(({ point }) => point.front && point.environment === environment)
      .sort((one, other) => one.left - other.left);
    line.slice(1).forEach((to, place) => boxes.push(...along(line[place], to)));
    const corners = line.map(({ left, top }) => `${left},${top}`).join(" ");
    if (line.length > 1) svg.append(draw("polyline", { class: "line", points: corners }));
  }
  return boxes;
}

function along(from, to) {
  const count = Math.ceil(Math.hypot(to.left - from.left, to.top - from.top) / 6);
  return Array.from({ length: count }, (_, n) => {
    const [x, y] = [from.left + ((to.left - from.left) * n) / count, from.top + ((to.top - from.top) * n) / count];
    return { left: x - 2, right: x + 2, top: y - 2, bottom: y + 2 };
  });
}

function picture(found, width) {
  const label = `${state.metric} against ${data.axes[axisOf()].name} of ${found.length} retrievers`;
  const svg = draw("svg", { width, height: FRAME.height, role: "group", "aria-label": label });
  at("picture").replaceChildren(svg);
  const costs = found.map((point) => point.cost);
  const spread = Math.min(...costs) > 0 && Math.max(...costs) / Math.min(...costs) > 10;
  const x = scaleOf(costs, FRAME.left + 8, width - FRAME.right - 8, spread);
  const y = scaleOf(found.map((point) => point.quality), FRAME.height - FRAME.bottom - 4, FRAME.top + 4, false);
  grid(svg, x, y, width);
  const placed = found.map((point) => ({ point, left: x.place(point.cost), top: y.place(point.quality) }));
  const taken = fronts(svg, placed);
  taken.push(...placed.map(({ left, top }) => ({ left: left - 8, right: left + 8, top: top - 8, bottom: top + 8 })));
  for (const { point, left, top } of placed) svg.append(pointNode(point, left, top));
  const first = [...placed].sort((one, other) => other.point.front - one.point.front);
  return first.filter(({ point, left, top }) => !nameNode(svg, point, left, top, taken, width)).length;
}

let plotKey = "";
function showPlot() {
  const width = at("picture").clientWidth;
  const key = JSON.stringify([state.metric, state.axis, shownRows().sort(), width]);
  if (key === plotKey) return;
  plotKey = key;
  untell();
  const found = points();
  const unnamed = found.length ? picture(found, width) : (at("picture").replaceChildren(), 0);
  at("plotted").textContent = legendOf(found, unnamed);
}

function legendOf(found, unnamed) {
  if (!found.length) return "No retriever shown has both a mean and this cost.";
  const missing = shownRows().length - found.length;
  const shapes = ["circles", "squares", "triangles", "diamonds"];
  const places = board().environments.map((name, place) => `${shapes[place % 4]}: environment ${name}`);
  return [
    "Filled, on the line: no retriever of the same environment is both better and cheaper.",
    ...(places.length > 1 ? [`${places.join("; ")}; a cross: several; they do not compare.`] : []),
    ...(unnamed ? [`${unnamed} without room for a name show it when pointed at.`] : []),
    ...(missing ? [`${missing} without a mean or this cost are not drawn.`] : []),
  ].join(" ");
}

function preparePlot() {
  addEventListener("resize", showPlot);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") untell();
  });
}
