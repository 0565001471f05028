import { $, make, rows, write } from "./dom.js";
import { bytes, count } from "./numbers.js";

const SHOWN = 50;
const NAME = /^(~.{1,500}|[A-Za-z0-9._\-:/@]{1,200})$/u;
let shown = ""; // the channel whose events are shown
let events = []; // newest first
let skipped = 0;
let isPaused = false;

export const shownChannel = () => shown;

/** Show this channel's events, and dispatch "channel" on the document. */
export function choose(name) {
  const wanted = name.trim();
  const isName = NAME.test(wanted);
  $("choose-error").textContent = isName || !wanted ? "" : "A channel's name has 1 to 200 ASCII letters, digits and . _ - : / @";
  $("channel").setAttribute("aria-invalid", String(!isName && !!wanted));
  if (!isName) return;
  $("channel").value = wanted;
  if (!$("to").value || $("to").value === shown) $("to").value = wanted;
  if (wanted === shown) return;
  shown = wanted;
  history.replaceState(null, "", `#${encodeURIComponent(wanted)}`);
  [events, skipped] = [[], 0];
  draw();
  document.dispatchEvent(new CustomEvent("channel"));
}

/** Add the events of the channel's history. Those shown already stay, as they may be newer. */
export function keep({ channel, events: kept }) {
  if (channel !== shown) return;
  const known = new Set(kept.map((event) => event.id));
  events = [...events.filter((event) => !known.has(event.id)), ...kept.reverse()].sort((one, other) => other.at - one.at);
  draw();
}

/** Add events that have just been published. */
export function add({ channel, events: fresh, skipped: more }) {
  if (channel !== shown) return;
  const known = new Set(events.map((event) => event.id));
  const unknown = fresh.filter((event) => !known.has(event.id));
  unknown.forEach((event) => (event.isFresh = true));
  events = [...unknown.reverse(), ...events];
  skipped += more;
  draw();
}

function draw() {
  events.length = Math.min(events.length, SHOWN);
  if (isPaused) return;
  rows($("events"), events, (event) => event.id, eventItem, () => {});
  write($("skipped"), skipped ? `${count(skipped)} more came too fast to be shown` : "");
  $("no-events").hidden = events.length > 0;
  write($("no-events"), shown ? `${shown} keeps no events. New ones will show here.` : "Choose a channel to see what is published to it.");
}

function eventItem(event) {
  const item = make("li", event.isFresh ? "fresh" : "");
  const at = new Date(event.at);
  const time = make("time", "", at.toLocaleTimeString("en-GB"));
  time.dateTime = at.toISOString();
  item.append(time, make("span", "event", event.event), make("span", "id", event.id), dataOf(event));
  return item;
}

function dataOf({ data, size, is_cut: isCut }) {
  const text = isCut ? `${data}… (${bytes(size)} in all)` : data;
  const lines = text.split("\n");
  if (text.length <= 300 && lines.length <= 6) return make("pre", "data", text);
  const details = make("details", "data");
  details.append(make("summary", "", `${lines[0].slice(0, 120)}… (${bytes(size)})`), make("pre", "data", text));
  return details;
}

$("choose").addEventListener("submit", (event) => {
  event.preventDefault();
  choose($("channel").value);
});
$("channel").addEventListener("change", () => choose($("channel").value));
$("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  $("pause").setAttribute("aria-pressed", String(isPaused));
  draw();
});
