import { span } from "./numbers.js";

const SPAN = 300_000;
const GAP = 4_500; // no monitor was open, or the server was away: no line is drawn across, and the time is marked
const GUTTER = 46;
const FOOT = 22;
const LABEL = 80; // so wide is "not watched"

/** Clients, and deliveries a second, over the last five minutes. */
export class Chart {
  #element;
  #grid = svg("svg", { class: "grid", "aria-hidden": "true" });
  #curves = svg("svg", { class: "curves", "aria-hidden": "true" });
  #points = [];

  constructor(element) {
    this.#element = element;
    element.append(this.#grid, this.#curves);
    new ResizeObserver(() => this.#draw()).observe(element);
  }

  /** Points of the past, of which some may be known. */
  fill(points) {
    this.#merge(points);
    this.#draw();
  }

  add(point) {
    this.#merge([point]);
    this.#draw();
  }

  /** In words, for who does not see it. */
  summary() {
    const { clients, deliveries } = this.#points.at(-1);
    const [least, most] = [Math.min, Math.max].map((of) => of(...this.#points.map((point) => point.clients)));
    const peak = Math.max(...this.#points.map((point) => point.deliveries));
    const unwatched = this.#unwatched().reduce((sum, [from, to]) => sum + to - from, 0);
    return (
      `The last five minutes${unwatched ? `, ${span(unwatched / 1000)} of them not watched` : ""}. Clients: ${clients} now, between ${least} and ${most}. ` +
      `Deliveries a second: ${Math.round(deliveries)} now, at most ${Math.round(peak)}.`
    );
  }

  #merge(points) {
    // Several processes serve this page in turns, so points of one second may come twice.
    const byTime = new Map([...this.#points, ...points].map((point) => [Math.round(point.at / 1000), point]));
    const sorted = [...byTime.values()].sort((one, other) => one.at - other.at);
    const newest = sorted.at(-1)?.at ?? 0;
    this.#points = sorted.filter((point) => point.at >= newest - SPAN);
  }

  get #width() {
    return Math.max(1, this.#element.clientWidth - GUTTER);
  }

  #draw() {
    const height = this.#element.clientHeight - FOOT;
    if (height < 60) return;
    const split = Math.round(height * 0.42);
    const panes = [
      { key: "clients", top: 8, bottom: split - 10, steps: true },
      { key: "deliveries", top: split + 10, bottom: height },
    ].map((pane) => ({ ...pane, most: roundUp(Math.max(4, ...this.#points.map((point) => point[pane.key]))) }));
    const unwatched = this.#unwatched().flatMap((hole) => this.#mark(hole, height));
    this.#grid.replaceChildren(...unwatched, ...panes.flatMap((pane) => this.#rules(pane)), ...this.#times(height));
    this.#curves.replaceChildren(...panes.map((pane) => this.#curve(pane)));
  }

  #rules({ top, bottom, most }) {
    return [0, most / 2, most].flatMap((mark) => {
      const y = Math.round(bottom - (mark / most) * (bottom - top)) + 0.5;
      return [
        svg("line", { x1: 0, x2: this.#width, y1: y, y2: y }),
        svg("text", { x: this.#width + 8, y: y + 4 }, shortly(mark)),
      ];
    });
  }

  #times(height) {
    return ["5 min ago", "2½ min", "now"].map((label, index) =>
      svg("text", { x: (this.#width * index) / 2, y: height + 18, "text-anchor": ["start", "middle", "end"][index] }, label),
    );
  }

  #curve({ key, top, bottom, most, steps }) {
    const end = this.#points.at(-1)?.at ?? 0;
    const x = (point) => (this.#width * (1 - (end - point.at) / SPAN)).toFixed(1);
    const y = (point) => (bottom - (point[key] / most) * (bottom - top)).toFixed(1);
    const next = (point) => (steps ? `H${x(point)}V${y(point)}` : `L${x(point)} ${y(point)}`);
    const runs = this.#runs().map((run) => ({
      run,
      line: run.map((point, index) => (index ? next(point) : `M${x(point)} ${y(point)}`)).join(""),
    }));
    const group = svg("g", { class: key });
    group.append(
      svg("path", { class: "area", d: runs.map(({ run, line }) => `${line}V${bottom}H${x(run[0])}Z`).join("") }),
      svg("path", { class: "line", d: runs.map(({ line }) => line).join("") }),
    );
    return group;
  }

  /** The times without figures: from, to. */
  #unwatched() {
    const end = this.#points.at(-1)?.at;
    if (end === undefined) return [];
    const runs = this.#runs();
    const ends = [end - SPAN, ...runs.map((run) => run.at(-1).at)];
    return runs.map((run, index) => [ends[index], run[0].at]).filter(([from, to]) => to - from > GAP);
  }

  #mark([from, to], height) {
    const end = this.#points.at(-1).at;
    const x = (at) => this.#width * (1 - (end - at) / SPAN);
    const width = x(to) - x(from);
    const band = svg("rect", { class: "unwatched", x: x(from).toFixed(1), y: 8, width: width.toFixed(1), height: height - 8 });
    band.append(svg("title", {}, "not watched"));
    if (width < LABEL) return [band];
    const middle = ((x(from) + x(to)) / 2).toFixed(1);
    return [band, svg("text", { class: "unwatched", x: middle, y: 24, "text-anchor": "middle" }, "not watched")];
  }

  #runs() {
    const runs = [];
    for (const point of this.#points) {
      const run = runs.at(-1);
      if (run && point.at - run.at(-1).at <= GAP) run.push(point);
      else runs.push([point]);
    }
    return runs;
  }
}

/** To a number whose half is as round. */
function roundUp(number) {
  const power = 10 ** Math.floor(Math.log10(number));
  return [2, 4, 6, 8, 10].map((factor) => factor * power).find((mark) => mark >= number);
}

function shortly(number) {
  return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(number);
}

function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  if (text !== undefined) element.textContent = text;
  return element;
}
