import { Chart } from "./chart.js";
import { $, cells, labelled, make, rows, write } from "./dom.js";
import { choose, shownChannel } from "./events.js";
import { bytes, count, many, rate, span, tenths } from "./numbers.js";

export const chart = new Chart($("chart"));

let report = null;

/** Show a report of the server. */
export function show(newest) {
  report = newest;
  const { point, totals, processes } = report;
  chart.add(point);
  showWhere();
  write($("clients"), count(point.clients));
  write($("monitors"), clientsScope(processes.length));
  write($("deliveries"), rate(point.deliveries));
  write($("delivered"), `${count(totals.deliveries)} in all, ${bytes(totals.bytes)}`);
  write($("published"), rate(point.published));
  write($("publishing"), publishing(totals));
  write($("pending"), count(totals.pending));
  write($("dropped"), `${count(totals.dropped)} dropped, ${many(totals.gaps, "gap")}`);
  showBroker(report.broker);
  showNotes();
  showEnds();
  showChannels();
  showSlow();
  showProcesses(processes);
  const element = $("chart");
  element.dataset.points = Number(element.dataset.points) + 1;
  element.setAttribute("aria-label", chart.summary());
  if (!shownChannel() && report.channels.length) choose(report.channels[0].name);
}

/** Say in how many processes the clients are, and count the monitors of this page's own process, which are no clients. */
function clientsScope(count) {
  const monitors = many(report.monitors, "monitor");
  return count > 1 ? `in ${count} processes; ${monitors} in this one` : `and ${monitors}`;
}

/** Count the clients that read a channel now; null where this page does not know. */
export function readers(name) {
  const channel = report?.channels.find((each) => each.name === name);
  if (channel) return channel.clients;
  const isWhole = report && report.channels_in_all === report.channels.length && (report.sees_all || !report.is_shared);
  return isWhole ? 0 : null;
}

function publishing({ published, confirmed, seconds, failed }) {
  const each = confirmed ? `, ${tenths.format((seconds / confirmed) * 1000)} ms each` : "";
  return `${count(published)} in all${each}${failed ? `, ${count(failed)} failed` : ""}`;
}

function showWhere() {
  const { processes, is_shared: isShared } = report;
  const [here] = processes;
  const others = processes.length - 1;
  const rest = isShared && others ? `, and ${many(others, "other process", "other processes")}` : "";
  write($("where"), `${here.host}, process ${here.pid}${rest}`);
}

function showBroker({ scheme, state }) {
  write($("broker"), state);
  write($("scheme"), `${scheme}://${report.is_shared ? "" : ", this process alone"}`);
  $("broker-tile").className = `tile ${state === "ok" ? "good" : "bad"}`;
}

function showNotes() {
  const { broker, warnings, is_shared: isShared, sees_all: seesAll, processes } = report;
  const notes = warnings.map((text) => ["Warning", text, ""]);
  if (broker.state !== "ok") notes.unshift(["Broker", broker.error ?? "It cannot be reached.", "bad"]);
  if (isShared && !seesAll) notes.push(["Other processes", "They cannot be reached: the figures are of this process alone.", ""]);
  if (processes.some((process) => process.draining)) notes.push(["Stopping", "A worker stops: its streams end.", ""]);
  const list = $("notes");
  const shown = JSON.stringify(notes);
  if (list.dataset.shown === shown) return;
  list.dataset.shown = shown;
  list.hidden = !notes.length;
  list.replaceChildren(
    ...notes.map(([head, text, kind]) => {
      const item = make("li", kind);
      item.append(make("strong", "", head), `: ${text}`);
      return item;
    }),
  );
}

const WHY = {
  COMPLETED: "the app ended it",
  TIMEOUT: "its lifetime was over",
  DISCONNECTED: "the client left",
  ERROR: "it failed",
  OVERFLOW: "too much was pending",
  SHUTDOWN: "the worker stopped",
  MOVED: "another worker has it now",
  REFUSED: "too many were open",
};
const BAD = ["ERROR", "OVERFLOW", "REFUSED"];
const ends = new Map();

for (const [reason, why] of Object.entries(WHY)) {
  const row = make("tr", BAD.includes(reason) ? "bad" : "");
  const head = make("th");
  head.scope = "row";
  const bar = make("div", "bar");
  bar.append(make("span"));
  head.append(make("span", "word", reason[0] + reason.slice(1).toLowerCase()), make("span", "why", why), bar);
  const number = make("td", "number zero", "–");
  row.append(head, number);
  row.dataset.reason = reason;
  $("ends").append(row);
  ends.set(reason, { number, bar: bar.firstChild });
}

function showEnds() {
  const numbers = { ...report.ends, MOVED: report.moved, REFUSED: report.totals.refused };
  const most = Math.max(1, ...Object.values(numbers));
  for (const [reason, { number, bar }] of ends) {
    write(number, count(numbers[reason]));
    number.className = `number ${numbers[reason] ? "" : "zero"}`;
    bar.style.width = numbers[reason] ? `max(5px, ${(numbers[reason] / most) * 100}%)` : "0";
  }
  const all = Object.values(report.ends).reduce((sum, each) => sum + each, 0);
  write($("ended"), `${count(all)} of ${count(report.totals.opened)} opened`);
}

let order = { key: "clients", down: true };

function showChannels() {
  const channels = report.channels.map((each) => ({ ...each, load: each.rate === null ? null : each.rate * each.clients }));
  const { key, down } = order;
  const value = (channel) => channel[key] ?? -1;
  channels.sort((one, other) => {
    const less = key === "name" ? one.name.localeCompare(other.name) : value(one) - value(other);
    return (down ? -less : less) || one.name.localeCompare(other.name);
  });
  rows($("channels"), channels, (channel) => channel.name, channelRow, fillChannel);
  $("no-channels").hidden = channels.length > 0;
  $("channels-table").hidden = !channels.length;
  const { channels_in_all: all } = report;
  write($("channels-shown"), all > channels.length ? `${count(channels.length)} of ${count(all)}` : all ? many(all, "channel") : "");
  const names = channels.slice(0, 50).map((channel) => channel.name).sort();
  if ($("names").dataset.names !== names.join(" ")) {
    $("names").dataset.names = names.join(" ");
    $("names").replaceChildren(...names.map((name) => Object.assign(document.createElement("option"), { value: name })));
  }
}

function channelRow(channel) {
  const row = cells("name", "number", "number wide", "number", "number wide");
  const button = make("button", "", channel.name);
  button.type = "button";
  button.addEventListener("click", () => choose(channel.name));
  row.firstChild.append(button);
  return row;
}

function fillChannel(row, { name, clients, events, rate: speed, load }) {
  const [, ...numbers] = row.children;
  [count(clients), events === null ? "–" : count(events), speed === null ? "–" : rate(speed), load === null ? "–" : rate(load)]
    .forEach((text, index) => write(numbers[index], text));
  row.toggleAttribute("aria-current", name === shownChannel());
  if (name === shownChannel()) row.setAttribute("aria-current", "true");
}

$("channels-table").tHead.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { key } = button.dataset;
  order = { key, down: order.key === key ? !order.down : key !== "name" };
  for (const head of $("channels-table").tHead.querySelectorAll("th")) {
    const own = head.contains(button);
    head.setAttribute("aria-sort", !own ? "none" : order.down ? "descending" : "ascending");
  }
  if (report) showChannels();
});

function showSlow() {
  const { slow } = report;
  $("slow-scroll").hidden = !slow.length;
  $("no-slow").hidden = slow.length > 0;
  write($("slow-scope"), report.is_shared ? "of the process that serves this page" : "");
  const numbered = slow.map((client, index) => ({ ...client, index }));
  const columns = ["name", "name", "number", "number", "wide", "number"];
  rows($("slow"), numbered, (client) => String(client.index), () => labelled($("slow"), cells(...columns)), (row, client) => {
    const by = client.outlet === "handed_off" ? "event loop" : "server";
    const who = client.identity ?? "–";
    const texts = [who, client.channels.join(", ") || "a list", count(client.pending), count(client.dropped), by, span(client.seconds)];
    texts.forEach((text, index) => write(row.children[index], text));
  });
}

function showProcesses(processes) {
  $("processes-card").hidden = !report.is_shared;
  write($("processes-shown"), many(processes.length, "process", "processes"));
  const columns = ["", "number", "number", "number", "number", "number", "", "number", "number"];
  rows($("processes"), processes, (process) => process.id, () => labelled($("processes"), cells(...columns)), (row, process) => {
    const reported = process === processes[0] ? "now" : `${span(process.age)} ago`;
    const known = (number) => (number === null ? "–" : count(number));
    const runs = process.since ? span(report.at / 1000 - process.since) : "–";
    const texts = [
      count(process.clients), rate(process.deliveries), rate(process.published), known(process.pending),
      known(process.dropped), process.broker.state ?? "–", runs, reported,
    ];
    texts.forEach((text, index) => write(row.children[index + 1], text));
    const name = process.pid ? `${process.host}, ${process.pid}` : process.id;
    const tags = [process === processes[0] && "this one", process.draining && "stopping"].filter(Boolean);
    if (row.dataset.shown !== name + tags) {
      row.dataset.shown = name + tags;
      row.firstChild.replaceChildren(name, ...tags.map((tag) => make("span", "tag", tag)));
    }
  });
}

document.addEventListener("channel", () => report && showChannels());
