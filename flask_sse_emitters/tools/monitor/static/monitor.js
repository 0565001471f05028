import { $, write } from "./dom.js";
import { add, choose, keep, shownChannel } from "./events.js";
import { chart, show } from "./figures.js";

/* The stream ------------------------------------------------------------------------------------------------------ */

const SILENCE = 15_000; // figures come every second: after so long without any, the connection is lost
const QUIET = 3_000; // a stream that is back within this time is not shown as lost
const PAUSES = [300, 1_000, 2_000]; // before each attempt to reconnect

let source = null;
let receivedAt = 0;
let lostAt = performance.now();
let tries = 0;
let retry = 0;
let isShown = false; // figures have arrived

function connect() {
  clearTimeout(retry);
  source?.close();
  receivedAt = performance.now();
  const channel = shownChannel();
  const opened = new EventSource(channel ? `stream?channel=${encodeURIComponent(channel)}` : "stream");
  source = opened;
  on("points", (points) => chart.fill(points));
  on("figures", show);
  on("kept", keep);
  on("events", add);
  // Not left to the browser: it gives up where a proxy answers for a server that restarts.
  opened.onerror = () => source === opened && reconnect();
}

function on(name, handle) {
  source.addEventListener(name, (event) => {
    receivedAt = performance.now();
    handle(JSON.parse(event.data));
    if (name !== "figures") return;
    isShown = true;
    if (lostAt || tries) {
      lostAt = tries = 0;
      showState();
    }
  });
}

async function reconnect() {
  source.close();
  lostAt ||= performance.now();
  const pause = PAUSES[Math.min(tries++, PAUSES.length - 1)] * (0.75 + Math.random() / 2);
  clearTimeout(retry);
  retry = setTimeout(connect, pause);
  showState();
  if ((await isDenied()) && lostAt) showState("closed");
}

async function isDenied() {
  try {
    const answer = await fetch("./", { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(5_000) });
    return [401, 403].includes(answer.status);
  } catch {
    return false;
  }
}

const STATES = { live: "Live", connecting: "Connecting…", lost: "Not connected", closed: "Access denied" };

function showState(known) {
  const away = lostAt && (performance.now() - lostAt > QUIET || !isShown);
  const state = known ?? (!away ? "live" : isShown ? "lost" : "connecting");
  const root = document.documentElement;
  if (!known && root.dataset.state === "closed" && lostAt) return;
  root.dataset.state = $("state").dataset.state = state;
  write($("state"), STATES[state]);
}

setInterval(() => {
  if (!lostAt && performance.now() - receivedAt > SILENCE) reconnect();
  if (lostAt) showState();
}, 500);

addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => event.persisted && connect());

document.addEventListener("channel", connect);
showState();
addEventListener("hashchange", chooseByHash);
chooseByHash();
if (!shownChannel()) connect();

function chooseByHash() {
  try {
    choose(decodeURIComponent(location.hash.slice(1)));
  } catch {} // no UTF-8
}
