// The last hour: figures of the fleet or of one node as small charts, with marks for arrivals and departures of nodes
// and app servers. Data is kept here for the hour, so that the fleet's history does not change when a node leaves.

import { read } from "./api.js";
import { byId, draw, keyed, make, setText, set } from "./dom.js";
import { bytes, count, milliseconds, percent, rate, short } from "./format.js";
import { isWebhook } from "./nodes.js";

const STEP_MS = 10_000;
const STEPS = 360;
// Time spans: ten minutes, half an hour, an hour. One minute of data in an hour would be a line at its end.
const SPANS = [60, 180, STEPS];
const POLL_MS = 10_000;
// Requests overlap, so that clock differences of some seconds lose no data.
const OVERLAP_MS = 60_000;
// Number of steps for which the last values of a silent node are used.
const CARRIED_STEPS = 3;
// Several nodes observe the same event, each at its own time.
const SAME_MARK_MS = 60_000;
const MARKS_MAX = 500;

const [KIB, MIB] = [1024, 1024 * 1024];

// Causes of a chart with their own colour.
const CAUSES_MAX = 4;
const OTHERS = "other";

// Name, key in the response, formatter, minimum height of the chart, base of its steps; how the values of several nodes
// become one: a sum by default.
const FIGURES = [
  { id: "clients", name: "Clients", key: "clients", text: short, least: 10, base: 10 },
  { id: "deliveries", name: "Deliveries", key: "deliveries", text: rate, least: 10, base: 10 },
  { id: "up", name: "Messages up", key: "messagesUp", text: rate, least: 10, base: 10 },
  { id: "links", name: "Links open", key: "links", text: count, least: 10, base: 10 },
  { id: "cpu", name: "Node CPU", key: "cpuPercent", text: percent, least: 10, base: 10 },
  { id: "memory", name: "Node memory", key: "memoryBytes", text: bytes, least: 64 * MIB, base: KIB },
  { id: "waiting", name: "Waiting for clients", key: "outboxBytes", text: bytes, least: 64 * KIB, base: KIB },
  { id: "opened", name: "Clients connected", key: "opened", text: rate, least: 1, base: 10 },
  { id: "closed", name: "Clients ended", key: "closed", text: rate, least: 1, base: 10, hasCauses: true },
  { id: "refused", name: "Refused", key: "refused", text: rate, least: 1, base: 10, hasCauses: true },
  { id: "errors", name: "Calls with an error", key: "callErrors", text: rate, least: 1, base: 10 },
  { id: "latency", name: "Round trip of links", key: "roundTripMs", text: (ms) => milliseconds(ms * 1000), least: 1, base: 10, isMean: true },
];

const total = (causes) => Object.values(causes).reduce((all, one) => all + one, 0);

// Adds up the values of several nodes; causes one by one.
function merged(values, { hasCauses, isMean }) {
  if (values.length === 0) return null;
  if (!hasCauses) return values.reduce((all, value) => all + value, 0) / (isMean ? values.length : 1);
  const all = {};
  for (const [cause, value] of values.flatMap(Object.entries)) all[cause] = (all[cause] ?? 0) + value;
  return all;
}

const CHANGES = {
  came: ["came", "good"],
  back: ["is back", "good"],
  drains: ["drains", "warm"],
  left: ["has left", "warm"],
  missed: ["is missed", "bad"],
  lost: ["is lost", "bad"],
};

const PARTIES = { node: "Node", app: "App server" };

// The name of a webhook is a template of URLs.
const words = (mark) => [PARTIES[mark.party] ?? "", isWebhook({ app: mark.id }) ? "webhook" : mark.name, CHANGES[mark.change]?.[0] ?? mark.change];

const toneOf = (mark) => CHANGES[mark.change]?.[1] ?? "warm";

const clock = (ms, hasSeconds) =>
  new Date(ms).toLocaleTimeString("en-GB", hasSeconds ? {} : { hour: "2-digit", minute: "2-digit" });

const stepOf = (ms) => Math.round(ms / STEP_MS);

// Smallest round number that is not below the value: a multiple of a power of ten, or of 1024 for bytes.
function height(value, least, base) {
  let unit = 1;
  while (base === KIB && value / unit >= KIB) unit *= KIB;
  const power = 10 ** Math.floor(Math.log10(Math.max(value / unit, 1)));
  const round = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((times) => times * power * unit).find((one) => one >= value);
  return Math.max(least, round ?? value);
}

export class Timeline {
  constructor() {
    // By instance: name, and samples by step.
    this.nodes = new Map();
    this.marks = [];
    this.atMs = 0;
    this.steps = STEPS;
    this.pointed = null;
    this.charts = FIGURES.map((figure) => new Chart(figure));
    const place = byId("timeline-charts");
    place.append(...this.charts.map((chart) => chart.element));
    byId("timeline-node").addEventListener("change", () => this.show());
    place.addEventListener("pointermove", (event) => this.pointAt(event));
    place.addEventListener("pointerleave", () => this.point(null));
    place.addEventListener("keydown", (event) => this.press(event));
    document.addEventListener("visibilitychange", () => this.load());
    setInterval(() => this.load(), POLL_MS);
    this.load();
  }

  async load() {
    if (document.hidden || this.isLoading) return;
    this.isLoading = true;
    const answer = await read("/api/timeline", { since: Math.max(0, this.atMs - OVERLAP_MS) });
    this.isLoading = false;
    if (!answer.ok) return setText(byId("timeline-note"), answer.problem);
    this.update(answer.value);
    this.show();
  }

  update(told) {
    this.atMs = told.atMs;
    const oldest = stepOf(told.atMs) - STEPS - 1;
    for (const node of this.nodes.values()) node.isHere = false;
    for (const part of told.nodes) {
      const node = this.nodes.get(part.instance) ?? { name: part.name, samples: new Map(), last: 0 };
      this.nodes.set(part.instance, node);
      node.isHere = true;
      part.atMs.forEach((ms, index) => {
        node.samples.set(stepOf(ms), Object.fromEntries(FIGURES.map(({ key }) => [key, part[key]?.[index]])));
        node.last = Math.max(node.last, stepOf(ms));
      });
      part.marks.forEach((mark) => this.updateMark(mark));
    }
    for (const [instance, node] of this.nodes) {
      for (const step of node.samples.keys()) if (step < oldest) node.samples.delete(step);
      if (!node.isHere && node.samples.size === 0) this.nodes.delete(instance);
    }
    this.marks = this.marks.filter((mark) => stepOf(mark.atMs) >= oldest).slice(-MARKS_MAX);
    const late = told.missing.length ? `No answer from ${told.missing.join(", ")}` : "";
    setText(byId("timeline-note"), late);
  }

  updateMark(mark) {
    const isSame = (known) =>
      known.id === mark.id && known.change === mark.change && Math.abs(known.atMs - mark.atMs) < SAME_MARK_MS;
    const known = this.marks.find(isSame);
    if (known) known.atMs = Math.min(known.atMs, mark.atMs);
    else this.marks.push({ ...mark, key: `${mark.id} ${mark.change} ${mark.atMs}` });
    this.marks.sort((one, other) => one.atMs - other.atMs);
  }

  show() {
    this.end = stepOf(this.atMs);
    this.steps = this.span();
    setText(byId("timeline-title"), this.steps === STEPS ? "Last hour" : `Last ${this.steps / 6} minutes`);
    this.showChoice();
    const chosen = byId("timeline-node").value;
    const nodes = [...this.nodes.values()].filter((node) => !chosen || node.name === chosen);
    this.known = this.sum(nodes);
    const marks = this.marks.map((mark) => ({ ...mark, x: this.steps - (this.end - stepOf(mark.atMs)) }));
    for (const chart of this.charts) chart.show(this.known, marks, this.end, this.steps);
    this.showMarks();
    this.point(this.pointed);
  }

  // The shortest span that includes all data.
  span() {
    let oldest = this.end;
    for (const node of this.nodes.values()) for (const step of node.samples.keys()) oldest = Math.min(oldest, step);
    for (const mark of this.marks) oldest = Math.min(oldest, stepOf(mark.atMs));
    return SPANS.find((span) => this.end - oldest <= span) ?? STEPS;
  }

  showChoice() {
    const names = [...new Set([...this.nodes.values()].map((node) => node.name))].sort();
    const select = byId("timeline-node");
    const wanted = ["", ...names];
    if (wanted.join("\n") === [...select.options].map((option) => option.value).join("\n")) return;
    const chosen = select.value;
    select.replaceChildren(...wanted.map((value) => make("option", { value }, value || "all nodes")));
    if (wanted.includes(chosen)) select.value = chosen;
  }

  // Figures at each step, summed over reporting nodes; none without a reporting node.
  sum(nodes) {
    const all = [];
    for (let step = this.end - this.steps; step <= this.end; step += 1) {
      const there = nodes.map((node) => sampleAt(node, step)).filter(Boolean);
      const of = (figure) => {
        const values = there.map((sample) => sample[figure.key]).filter((value) => value !== null && value !== undefined);
        return merged(values, figure);
      };
      all.push(Object.fromEntries(FIGURES.map((figure) => [figure.key, of(figure)])));
    }
    return all;
  }

  showMarks() {
    const newest = [...this.marks].reverse();
    const create = (mark) => {
      const [party, name, change] = words(mark);
      return make("li", { "data-tone": toneOf(mark), title: `instance ${mark.id}` },
        make("time", {}), make("span", {}, `${party} `, make("strong", {}, name), ` ${change}`));
    };
    keyed(byId("timeline-marks"), newest, (mark) => mark.key, create,
      (element, mark) => setText(element.firstChild, clock(mark.atMs, true)));
    setText(byId("timeline-count"), newest.length ? `Joined and left (${count(newest.length)})` : "No node or app server joined or left");
    byId("timeline-came").hidden = false;
  }

  // ----------------------------------------------------------------------------------------- one moment

  pointAt(event) {
    const plot = event.target.closest(".plot");
    if (!plot) return;
    const box = plot.getBoundingClientRect();
    this.point(Math.round(((event.clientX - box.left) / box.width) * this.steps));
  }

  press(event) {
    const far = event.shiftKey ? 30 : 1;
    const step = { ArrowLeft: -far, ArrowRight: far, Home: -this.steps, End: this.steps }[event.key];
    if (event.key === "Escape") this.point(null);
    if (step === undefined) return;
    event.preventDefault();
    this.point((this.pointed ?? this.steps) + step);
  }

  // The time of a step, and its arrivals and departures.
  momentOf(step) {
    const then = this.marks.filter((mark) => Math.abs(stepOf(mark.atMs) - step) <= 1).map(words);
    return [`at ${clock(step * STEP_MS, true)}`, ...then.map((one) => one.join(" "))].join(" · ");
  }

  // Shows the values of one step; of the latest, if the pointer is elsewhere.
  point(at) {
    this.pointed = at === null ? null : Math.min(this.steps, Math.max(0, at));
    if (!this.known) return;
    const index = this.pointed ?? this.known.findLastIndex((values) => values.clients !== null);
    for (const chart of this.charts) chart.point(this.known[index], this.pointed);
    setText(byId("timeline-at"), this.pointed === null ? "" : this.momentOf(this.end - this.steps + this.pointed));
  }
}

// A missed step repeats the one before; a removed node has none.
function sampleAt(node, step) {
  if (!node.isHere && step > node.last) return null;
  for (let back = 0; back <= CARRIED_STEPS; back += 1) {
    const sample = node.samples.get(step - back);
    if (sample) return sample;
  }
  return null;
}

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.area = draw("path", { class: "area" });
    this.line = draw("path", { class: "line" });
    this.lines = draw("g", { class: "marks" });
    this.rule = draw("line", { class: "rule", y1: 0, y2: 100 });
    this.grid = draw("path", { class: "grid" });
    this.layers = draw("g");
    this.svg = draw("svg", { preserveAspectRatio: "none", "aria-hidden": "true" },
      this.grid, this.area, this.layers, this.line, this.lines, this.rule);
    this.causes = make("ul", { class: "causes", id: `timeline-${figure.id}-causes` });
    const id = (part) => `timeline-${figure.id}-${part}`;
    this.value = make("strong", { id: id("value") }, "–");
    this.most = make("span", { class: "most" });
    this.times = make("p", { class: "times", "aria-hidden": "true" }, make("span"), make("span"), make("span", {}, "now"));
    this.element = make("figure", { id: `timeline-${figure.id}` },
      make("figcaption", {}, make("span", {}, figure.name), this.value),
      make("div", { class: "plot" }, this.svg, this.most), this.times, ...(figure.hasCauses ? [this.causes] : []));
  }

  show(known, marks, end, steps) {
    set(this.svg, "viewBox", `0 0 ${steps} 100`);
    set(this.grid, "d", `M0 50H${steps}M0 0H${steps}`);
    const { least, base, text, hasCauses, key } = this.figure;
    const values = known.map((one) => (hasCauses && one[key] ? total(one[key]) : one[key]));
    const largest = Math.max(0, ...values.filter((value) => value !== null));
    // Leaves some room above, so that a line at the top is visible.
    const most = height(largest * 1.04, least, base);
    const y = (value) => (100 - (100 * value) / most).toFixed(1);
    let [line, area] = ["", ""];
    for (const { from, to } of runs(values)) {
      const points = values.slice(from, to).map((value, index) => `${from + index} ${y(value)}`);
      // A single sample would not be visible as a line.
      line += `M${points.join("L")}${points.length === 1 ? "h0.5" : ""}`;
      area += `M${from} 100L${points.join("L")}L${to - 1} 100Z`;
    }
    set(this.line, "d", line || null);
    set(this.area, "d", (!hasCauses && area) || null);
    if (hasCauses) this.stack(known.map((one) => one[key]), y);
    setText(this.most, text(most).replace(/\.0 /, " "));
    const [from, middle] = this.times.children;
    setText(from, clock((end - steps) * STEP_MS));
    setText(middle, clock((end - steps / 2) * STEP_MS));
    keyed(this.lines, marks.filter((mark) => mark.x >= 0), (mark) => mark.key,
      (mark) => draw("line", { y1: 0, y2: 100, "data-tone": toneOf(mark), "data-party": mark.party }),
      (element, mark) => ["x1", "x2"].forEach((side) => set(element, side, mark.x)));
  }

  // Draws the causes of the whole span above each other, the most frequent one lowest.
  stack(causes, y) {
    const sums = Object.entries(merged(causes.filter(Boolean), this.figure) ?? {}).sort((one, other) => other[1] - one[1]);
    const names = sums.map(([cause]) => cause).filter((cause) => cause !== OTHERS);
    const shown = names.slice(0, CAUSES_MAX);
    if (names.length > shown.length || sums.length > names.length) shown.push(OTHERS);
    this.shown = shown;
    const below = causes.map(() => 0);
    const paths = shown.map((name) => {
      const from = [...below];
      causes.forEach((one, index) => (below[index] += valueOf(one ?? {}, name, shown)));
      const way = runs(causes).map((run) => {
        const points = (heights) => heights.slice(run.from, run.to).map((value, index) => `${run.from + index} ${y(value)}`);
        return `M${points(below).join("L")}L${points(from).reverse().join("L")}Z`;
      });
      return { name, d: way.join("") };
    });
    keyed(this.layers, paths, ({ name }) => name, () => draw("path"), (element, { name, d }) => {
      set(element, "class", classOf(name, shown.indexOf(name)));
      set(element, "d", d || null);
    });
  }

  showCauses(causes) {
    const rows = (this.shown ?? []).map((name, index) => ({ name, index, value: valueOf(causes ?? {}, name, this.shown) }));
    keyed(this.causes, rows, ({ name }) => name, ({ name }) => make("li", {}, make("span", {}, name.replaceAll("_", " ")), " ", make("b")),
      (element, { name, index, value }) => {
        set(element, "class", classOf(name, index));
        setText(element.lastChild, this.figure.text(value));
      });
  }

  point(values, pointed) {
    const causes = values?.[this.figure.key];
    const value = this.figure.hasCauses && causes ? total(causes) : causes;
    if (this.figure.hasCauses) this.showCauses(causes);
    setText(this.value, value === null || value === undefined ? "–" : this.figure.text(value));
    set(this.rule, "hidden", pointed === null);
    ["x1", "x2"].forEach((side) => set(this.rule, side, pointed ?? 0));
  }
}

const classOf = (name, index) => `cause${name === OTHERS ? CAUSES_MAX : index}`;

// Value of a cause; of the last one, the sum of all that have no colour.
function valueOf(causes, name, shown) {
  if (name !== OTHERS) return causes[name] ?? 0;
  return total(causes) - shown.reduce((all, one) => all + (one === OTHERS ? 0 : causes[one] ?? 0), 0);
}

// Ranges of values without a gap, each from its first index to the one after its last.
function runs(values) {
  const all = [];
  values.forEach((value, index) => {
    if (value === null) return;
    const last = all.at(-1);
    if (last?.to === index) last.to = index + 1;
    else all.push({ from: index, to: index + 1 });
  });
  return all;
}
