import { span } from "./numbers.js";

const SPAN = 300_000;
const GAP = 4_500; // a longer time without figures is marked, and no line is drawn across it
const GUTTER = 46;
const FOOT = 22;
const LABEL = 80; // the width of "not watched"

/** Draws clients, and deliveries per second, over the last five minutes. */
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

  /** Add points of the past; some may be known already. */
  fill(points) {
    this.#merge(points);
    this.#draw();
  }

  /** Add the newest point. */
  add(point) {
    this.#merge([point]);
    this.#draw();
  }

  /** Describe the chart in words, for screen readers. */
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
    // After a reconnect another process may serve this page, with points of the same seconds.
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

  /** List the times without figures, each from its start to its end. */
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

/** Round up to a number whose half is round as well. */
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
