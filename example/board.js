const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/* The stream ------------------------------------------------------------------------------------------------------ */

const SILENCE = 5_000; // the load comes every second: after this time the network is down, even without an error
const QUIET = 3_000; // a server that reloads is usually back within this time, at the first attempt
const PAUSE = 2_000;

let stream;
let lastEventAt = 0;
let lostAt = 0;
let isAway = false; // a reconnect has failed, so this is more than a reload
let retryAt = 0;

function listen() {
  retryAt = 0;
  lastEventAt = performance.now();
  stream = connect("live", {
    notice: (notice) => addNotice(notice, true) && announce(notice),
    gap: catchUp, // the server can no longer replay what was missed
    asked: ({ id }) => id === answerId || followAnswer(),
    samples: (samples) => chart.fill(samples),
    load: showLoad,
  });
  // A new stream begins with the next notice. Fetch the earlier ones once it is open, so that none is missed.
  stream.addEventListener("open", catchUp, { once: true });
  showState();
}

function connect(url, handlers) {
  const source = new EventSource(url);
  let failures = 0; // in a row
  source.onopen = () => {
    failures = 0;
    lastEventAt = performance.now();
    if (isLive()) comeBack();
    showState();
  };
  source.onerror = () => {
    failures += 1;
    isAway ||= failures > 1 || source.readyState === EventSource.CLOSED;
    lose();
    if (source.readyState === EventSource.CLOSED) retryLater(); // otherwise the browser retries by itself
  };
  for (const [name, handle] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => {
      lastEventAt = performance.now();
      handle(JSON.parse(event.data));
    });
  }
  return source;
}

/** Merge the server's notices into the page; known ones stay as they are. See whether there is an answer. */
async function catchUp() {
  // One that is being written goes on, also while the server reloads: its stream is told where it cannot.
  if (!isWriting() || answer.readyState === EventSource.CLOSED) followAnswer();
  try {
    const response = await fetch("notices", { cache: "no-store" });
    for (const notice of await response.json()) addNotice(notice);
  } catch {
    setTimeout(catchUp, PAUSE);
  }
}

function isLive() {
  return stream.readyState === EventSource.OPEN;
}

function lose(since = performance.now()) {
  lostAt ||= since;
  showState();
}

function comeBack() {
  lostAt = 0;
  isAway = false;
  for (const element of document.querySelectorAll("[data-unreached=true]")) showError(element.id);
}

function retryLater() {
  closeAll();
  retryAt = performance.now() + PAUSE;
  showState();
}

function closeAll() {
  stream.close();
  answer?.close();
}

function showState() {
  const live = isLive();
  if (!live && lostAt && !isAway && performance.now() - lostAt < QUIET) return;
  const state = live ? "live" : lostAt ? "lost" : "connecting";
  const element = $("state");
  if (element.dataset.state !== state) {
    element.dataset.state = document.documentElement.dataset.state = state;
    element.setAttribute("aria-live", "polite");
  } else if (state === "lost") {
    element.setAttribute("aria-live", "off"); // announce the change once, not each second
  }
  const text = { live: "Live", connecting: "Connecting…", lost: reconnecting() }[state];
  if (element.textContent !== text) element.textContent = text;
}

function reconnecting() {
  if (retryAt) return `Reconnecting in ${Math.max(1, Math.ceil((retryAt - performance.now()) / 1000))} s`;
  return `Reconnecting… ${Math.round((performance.now() - lostAt) / 1000)} s`;
}

setInterval(() => {
  const time = performance.now();
  if (retryAt && time >= retryAt) listen();
  else if (isLive() && time - lastEventAt > SILENCE) {
    retryLater();
    lose(lastEventAt);
  }
  if (lostAt) showState();
}, 500);

addEventListener("pagehide", closeAll);
addEventListener("pageshow", (event) => {
  if (event.persisted) listen();
});

/* Notices --------------------------------------------------------------------------------------------------------- */

const KEPT = 50; // the same as the server, so that old and new pages show the same
const known = new Set(); // ids: a notice may arrive by stream, by fetch, and as the answer to the form
const title = document.title;
let unseen = 0;

/** Add a notice. Returns whether it was new. */
function addNotice(notice, fresh = false) {
  if (known.has(notice.id)) return false;
  known.add(notice.id);
  const item = noticeItem(notice, fresh);
  const list = $("notices");
  const older = [...list.children].find((other) => Number(other.dataset.at) <= notice.at);
  list.insertBefore(item, older ?? null);
  while (list.children.length > KEPT) list.lastElementChild.remove();
  $("empty").hidden = true;
  return true;
}

function noticeItem(notice, fresh) {
  const at = new Date(notice.at);
  const today = at.toDateString() === new Date().toDateString();
  const time = make("time", "", at.toLocaleString([], today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" }));
  time.dateTime = at.toISOString();
  time.title = at.toLocaleString();
  const mark = make("span", "mark", [...notice.author][0].toUpperCase());
  mark.ariaHidden = "true";
  mark.style.setProperty("--hue", [...notice.author].reduce((hue, letter) => (hue * 31 + letter.codePointAt(0)) % 360, 7));
  const item = make("li", fresh ? "fresh" : "");
  item.dataset.id = notice.id;
  item.dataset.at = notice.at;
  item.append(mark, make("span", "author", notice.author), time, make("p", "text", notice.text));
  return item;
}

function make(name, className, text = "") {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}

function announce(notice) {
  $("latest").textContent = `${notice.author}: ${notice.text}`;
  if (document.hidden) document.title = `(${++unseen}) ${title}`;
}

document.addEventListener("visibilitychange", () => {
  unseen = 0;
  document.title = title;
});

/* The form -------------------------------------------------------------------------------------------------------- */

const form = $("form");
const { author, text } = form.elements;
const button = form.querySelector("button");
const keys = $("hint").firstElementChild;
let sending = false;

function refresh() {
  button.disabled = sending || !text.value.trim();
  const left = text.maxLength - text.value.length;
  $("hint").classList.toggle("counting", left <= 100);
  $("hint").replaceChildren(left <= 100 ? `${left} characters left` : keys);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (button.disabled) return;
  const sent = text.value;
  sending = true;
  text.focus();
  refresh();
  try {
    addNotice(await request("POST", "notices", { author: author.value, text: sent }), true);
    if (text.value === sent) text.value = "";
    showError("error");
  } catch (error) {
    showError("error", error);
  }
  sending = false;
  refresh();
});

text.addEventListener("input", () => {
  showError("error");
  refresh();
});
text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
author.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing) return;
  event.preventDefault();
  if (button.disabled) text.focus();
  else form.requestSubmit();
});

let remembered = {};
try {
  remembered = localStorage;
} catch {} // the browser stores nothing for this page
author.value = remembered.author ?? "";
author.addEventListener("change", () => (remembered.author = author.value));

/* The answer ------------------------------------------------------------------------------------------------------ */

const PROGRESS = {
  writing: () => "Writing…",
  done: (words) => `Complete: ${words}.`,
  stopped: (words) => `Stopped after ${words}.`,
  interrupted: (words) => `Interrupted after ${words}, as the server stopped. Ask again.`,
};

const ask = $("ask");
const { question } = ask.elements;
let answer;
let answerId;

/** Read the newest answer from its first word. After its end the browser tries once more, gets a 204, and gives up. */
function followAnswer() {
  answer?.close();
  endAnswer("interrupted"); // unless the server still knows it
  answer = new EventSource("events/answer");
  answer.addEventListener("asked", (event) => beginAnswer(JSON.parse(event.data)));
  answer.onmessage = (event) => $("words").append(`${event.data} `);
  answer.addEventListener("gap", followAnswer); // another process, which knows nothing of the words so far
  answer.addEventListener("done", () => endAnswer("done"));
  answer.addEventListener("interrupted", () => endAnswer("interrupted"));
  answer.addEventListener("~end", () => endAnswer("stopped")); // and nothing said why
}

function beginAnswer(asked) {
  answerId = asked.id;
  $("asked").textContent = asked.question;
  $("words").textContent = "";
  showProgress("writing");
}

function endAnswer(progress) {
  if (isWriting()) showProgress(progress);
}

function isWriting() {
  return $("answer").dataset.progress === "writing";
}

/** Show how far the answer is. Screen readers announce this, not each word. */
function showProgress(progress) {
  const count = $("words").textContent.split(" ").length - 1;
  $("answer").dataset.progress = progress;
  $("words").ariaBusy = String(isWriting());
  $("progress").textContent = PROGRESS[progress](count === 1 ? "1 word" : `${count} words`);
  if (document.activeElement === $("stop")) $("answer").focus(); // before the button goes
  $("stop").hidden = !isWriting();
  refreshAsk();
}

function refreshAsk() {
  ask.querySelector("button").disabled = isWriting() || !question.value.trim();
}

async function tryTo(...change) {
  showError("ask-error");
  try {
    await request(...change);
    return true;
  } catch (error) {
    showError("ask-error", error);
    return false;
  }
}

ask.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (ask.querySelector("button").disabled) return;
  if (await tryTo("POST", "answer", { question: question.value })) question.value = "";
  refreshAsk();
});
question.addEventListener("input", refreshAsk);
$("stop").addEventListener("click", () => tryTo("DELETE", "answer"));

/* Requests -------------------------------------------------------------------------------------------------------- */

class Unreached extends Error {}

async function request(method, url, body) {
  let response;
  try {
    response = await fetch(url, {
      method,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(8_000),
    });
  } catch (error) {
    throw new Unreached(
      error.name === "TimeoutError"
        ? "The server has not answered. A browser opens six connections to it, and each of these tabs takes one or two: are there more than three?"
        : "The server cannot be reached. Your text is kept: send it again once the page is live.",
    );
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `The server answered ${response.status}.`);
  return answer;
}

/** Show an error, or none, until the next attempt; or until the server is back, if it could not be reached. */
function showError(id, error) {
  $(id).textContent = error?.message ?? "";
  $(id).dataset.unreached = error instanceof Unreached;
}

/* The chart ------------------------------------------------------------------------------------------------------- */

function showLoad(load) {
  $("cpu").textContent = Math.round(load.cpu);
  $("clients").textContent = load.clients;
  chart.add(load);
  const element = $("chart");
  element.dataset.samples = Number(element.dataset.samples) + 1;
  element.setAttribute("aria-label", `The last two minutes. Now: processor load ${Math.round(load.cpu)} percent, clients ${load.clients}.`);
}

/** Two curves over the last two minutes. New samples slide in during the second before the next. */
class Chart {
  static SPAN = 120_000;
  static GAP = 3_500; // the server was down: draw no line across
  static SLIDE = 1_000;

  #element;
  #grid = svg("svg", { class: "grid", "aria-hidden": "true" });
  #curves = svg("svg", { class: "curves", "aria-hidden": "true" });
  #view = make("div", "window"); // leaves room for the labels
  #samples = [];
  #slide = { from: 0, to: 0, since: 0 }; // the time at the right edge

  constructor(element) {
    this.#element = element;
    this.#view.append(this.#curves);
    element.append(this.#grid, this.#view);
    new ResizeObserver(() => this.#draw()).observe(element);
  }

  /** Add past samples; some may be known already. */
  fill(samples) {
    this.#merge(samples);
    this.#slide = { from: this.#end, to: this.#end, since: 0 };
    this.#draw();
  }

  add(sample) {
    const edge = this.#edge;
    this.#merge([sample]);
    const to = this.#end;
    const from = calm.matches || document.hidden || to - edge > Chart.GAP ? to : edge;
    this.#slide = { from, to, since: performance.now() };
    this.#draw();
    const distance = ((to - from) / Chart.SPAN) * this.#width;
    this.#curves.getAnimations().forEach((animation) => animation.cancel());
    if (distance) this.#curves.animate([{ transform: `translateX(${distance}px)` }, { transform: "none" }], Chart.SLIDE);
  }

  get #end() {
    return this.#samples.at(-1)?.at ?? 0;
  }

  get #edge() {
    const { from, to, since } = this.#slide;
    return from + (to - from) * Math.min(1, (performance.now() - since) / Chart.SLIDE);
  }

  get #width() {
    return Math.max(1, this.#view.clientWidth);
  }

  #merge(samples) {
    const byTime = new Map([...this.#samples, ...samples].map((sample) => [sample.at, sample]));
    const sorted = [...byTime.values()].sort((one, other) => one.at - other.at);
    this.#samples = sorted.filter((sample) => sample.at >= sorted.at(-1).at - Chart.SPAN - 5_000);
  }

  #draw() {
    const height = this.#element.clientHeight - 24;
    const split = Math.round(height * 0.68);
    const most = roundUp(Math.max(...this.#samples.map((sample) => sample.clients), 2));
    const panes = [
      { key: "cpu", top: 8, bottom: split, most: 100, marks: [0, 50, 100], unit: " %" },
      { key: "clients", top: split + 26, bottom: height, most, marks: [0, most], unit: "", steps: true },
    ];
    this.#grid.replaceChildren(...panes.flatMap((pane) => this.#rules(pane)), ...this.#times(height));
    this.#curves.replaceChildren(...panes.map((pane) => this.#curve(pane)));
  }

  #rules({ top, bottom, most, marks, unit }) {
    return marks.flatMap((mark) => {
      const y = Math.round(bottom - (mark / most) * (bottom - top)) + 0.5;
      const label = mark === most ? mark + unit : mark;
      return [
        svg("line", { x1: 0, x2: this.#width, y1: y, y2: y }),
        svg("text", { x: this.#width + 6, y: y + 4 }, label),
      ];
    });
  }

  #times(height) {
    return ["2 min ago", "1 min ago", "now"].map((label, index) =>
      svg("text", { x: (this.#width * index) / 2, y: height + 20, "text-anchor": ["start", "middle", "end"][index] }, label),
    );
  }

  #curve({ key, top, bottom, most, steps }) {
    const x = (sample) => (this.#width * (1 - (this.#end - sample.at) / Chart.SPAN)).toFixed(1);
    const y = (sample) => (bottom - (sample[key] / most) * (bottom - top)).toFixed(1);
    const step = (sample, index, run) => {
      if (steps) return `H${x(sample)}V${y(sample)}`;
      const before = run[index - 1];
      const middle = ((Number(x(before)) + Number(x(sample))) / 2).toFixed(1);
      return `C${middle} ${y(before)} ${middle} ${y(sample)} ${x(sample)} ${y(sample)}`;
    };
    const runs = this.#runs().map((run) => ({
      run,
      line: run.map((sample, index) => (index ? step(sample, index, run) : `M${x(sample)} ${y(sample)}`)).join(""),
    }));
    const group = svg("g", { class: key });
    group.append(
      svg("path", { class: "area", d: runs.map(({ run, line }) => `${line}V${bottom}H${x(run[0])}Z`).join("") }),
      svg("path", { class: "line", d: runs.map(({ line }) => line).join("") }),
    );
    return group;
  }

  #runs() {
    const runs = [];
    for (const sample of this.#samples) {
      const run = runs.at(-1);
      if (run && sample.at - run.at(-1).at <= Chart.GAP) run.push(sample);
      else runs.push([sample]);
    }
    return runs;
  }
}

function roundUp(number) {
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 5, 10].map((factor) => factor * power).find((mark) => mark >= number);
}

function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  if (text !== undefined) element.textContent = text;
  return element;
}

const chart = new Chart($("chart"));

$("curl").textContent = `curl -N ${new URL("events/notices", location)}`;
refresh();
refreshAsk();
listen();
