/**
 * Channels in the browser, over one connection for all tabs of the same reader: what pages call.
 *
 * How tabs share is in `hub.js`.
 *
 * @module
 */

import { Hub } from "./hub.js";
import "./leader.js"; // this and what follows is fetched at once, rather than when hub.js has come
import "./messages.js";
import { asker } from "./stream.js";
import { ChannelEvent, Subscription } from "./subscription.js";
import "./whose.js";

export { ChannelEvent };

/** @typedef {"connecting" | "open" | "closed"} State */
/** @typedef {{ channels: string[] }} Gap */
/** @typedef {{ channel: string, status: number, message: string }} Refusal */

/**
 * @typedef {object} Options
 * @property {(event: ChannelEvent) => void} [onEvent] gets every event, whatever its name.
 * @property {(gap: Gap) => void} [onGap] something of these channels was missed and is gone: fetch their state anew.
 * @property {(refusal: Refusal) => void} [onError] the server refuses a channel, with 401, 403 or 404, say. It is given
 *   up, and the others go on. A server that is away is no error: the state is "connecting".
 * @property {(state: State) => void} [onState] "open": whatever is published from now on comes.
 * @property {() => void} [onReaderChange] somebody else is logged in than when this page subscribed, or no known
 *   reader is. The subscription is closed: load the page anew.
 * @property {Record<string, string>} [since] by channel, the id after which to begin; else with what comes next.
 * @property {boolean} [withCredentials] send cookies to another origin, too.
 * @property {HeadersInit | (() => HeadersInit | Promise<HeadersInit>)} [headers] sent with this tab's requests.
 * @property {string | false} [share] tabs that say the same here share a connection; with false this one has its own.
 * @property {number} [silence] seconds without a byte after which the connection counts as dead, more than
 *   SSE_HEARTBEAT; 0 is never. 45 if left out.
 */

/** @typedef {(event: ChannelEvent) => void} Handler */

/** @type {Map<string, Hub>} */
const hubs = new Map();

/**
 * Read channels; every tab of the same reader that does so at this address shares one connection.
 *
 * @example
 * const orders = subscribe("/events", ["orders", "news"], { onGap: () => location.reload() });
 * orders.on("created", (event) => add(event.json()), { channel: "orders" });
 *
 * @param {string | URL} url where the blueprint of the channels is.
 * @param {string | string[]} channels names, one or more; "~" is the reader's own.
 * @param {Options} [options]
 */
export function subscribe(url, channels, options = {}) {
  const names = [channels].flat();
  if (!names.length || !names.every((name) => typeof name === "string")) throw new TypeError("subscribe() takes an address and names of channels");
  const address = new URL(url, typeof document === "undefined" ? globalThis.location?.href : document.baseURI);
  address.hash = "";
  const { withCredentials = false, share = "", silence = 45 } = options;
  const key = ["sse-emitters", address.href, withCredentials, share];
  const name = JSON.stringify(key);
  const ask = asker(address, options);
  const hub = (share !== false && hubs.get(name)) || new Hub(key, share, ask, silence);
  if (share !== false) hubs.set(name, hub);
  const subscription = new Subscription(names, options);
  hub.add(subscription, options.headers ? ask : undefined);
  return {
    /**
     * Have a function called with each event of this name, "message" where it has none.
     *
     * @param {string} name
     * @param {Handler} handler
     * @param {{ channel?: string }} [only] of this channel, and not of all.
     * @returns {() => void} ends that.
     */
    on(name, handler, { channel } = {}) {
      const entry = { name, handler, channel };
      subscription.handlers.add(entry);
      return () => void subscription.handlers.delete(entry);
    },
    /** End it; and the connection, where nobody else reads. Nothing is called any more. */
    close() {
      hub.remove(subscription);
    },
    /** @returns {State} */
    get state() {
      return subscription.state;
    },
    /** Those that were not refused. */
    get channels() {
      return [...subscription.channels];
    },
  };
}
