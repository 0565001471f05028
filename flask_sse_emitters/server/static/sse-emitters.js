/**
 * Channels in the browser, over one connection for all tabs of the same reader: the functions that pages call.
 *
 * `tabs.js` describes how tabs share it.
 *
 * @module
 */

import { PageSubscriptions } from "./page.js";
import "./tabs.js"; // this and the others are fetched at once, rather than after page.js
import "./leader.js";
import "./messages.js";
import "./positions.js";
import { makeRequester } from "./stream.js";
import { ChannelEvent, Subscription } from "./subscription.js";
import "./identity.js";

export { ChannelEvent };

/** @typedef {"connecting" | "open" | "closed"} State */
/** @typedef {{ channels: string[] }} Gap */
/** @typedef {{ channels: string[] }} End */
/** @typedef {{ channel: string, status: number, message: string }} Refusal */

/**
 * @typedef {object} Options
 * @property {(event: ChannelEvent) => void} [onEvent] gets every event, whatever its name.
 * @property {(gap: Gap) => void} [onGap] events of these channels were missed and are gone: fetch their state again.
 * @property {(end: End) => void} [onEnd] these channels have ended, and every event of them has arrived. They are dropped,
 *   and the others continue.
 * @property {(refusal: Refusal) => void} [onError] the server refuses a channel, with 401, 403 or 404, say. It is
 *   dropped, and the others continue. A server that cannot be reached is no error: the state is "connecting".
 * @property {(state: State) => void} [onState] "open": all events published from now on arrive.
 * @property {() => void} [onReaderChange] another reader is logged in than when this page subscribed, or none is. The
 *   subscription is closed: reload the page.
 * @property {Record<string, string>} [since] by channel, the id after which to begin; by default with the next event.
 * @property {boolean} [withCredentials] send cookies to another origin, too.
 * @property {HeadersInit | (() => HeadersInit | Promise<HeadersInit>)} [headers] sent with this tab's requests.
 * @property {string | false} [share] tabs with the same value share a connection; with false this one has its own.
 * @property {number} [silence] seconds without a byte after which the connection counts as dead, more than
 *   SSE_HEARTBEAT; 0 is never. 45 if left out.
 */

/** @typedef {(event: ChannelEvent) => void} Handler */
/** @typedef {ReturnType<typeof subscribe>} ChannelSubscription */

/** @type {Map<string, PageSubscriptions>} */
const groups = new Map();

/**
 * Subscribe to channels. All tabs of the same reader that subscribe at this address share one connection.
 *
 * @example
 * const orders = subscribe("/events", ["orders", "news"], { onGap: () => location.reload() });
 * orders.on("created", (event) => add(event.json()), { channel: "orders" });
 *
 * @param {string | URL} url the address of the blueprint of the channels.
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
  const ask = makeRequester(address, options);
  const group = (share !== false && groups.get(name)) || new PageSubscriptions(key, share, ask, silence);
  if (share !== false) groups.set(name, group);
  const subscription = new Subscription(names, options);
  group.add(subscription, options.headers ? ask : undefined);
  return {
    /**
     * Call a function with each event of this name; "message" is for events without one.
     *
     * @param {string} name
     * @param {Handler} handler
     * @param {{ channel?: string }} [only] limits it to this channel.
     * @returns {() => void} a function that ends this.
     */
    on(name, handler, { channel } = {}) {
      const entry = { name, handler, channel };
      subscription.handlers.add(entry);
      return () => void subscription.handlers.delete(entry);
    },
    /** End the subscription, and the connection if it was the last one. No callback is called afterwards. */
    close() {
      group.remove(subscription);
    },
    /** @returns {State} */
    get state() {
      return subscription.state;
    },
    /** The channels that were not refused, and have not ended. */
    get channels() {
      return [...subscription.channels];
    },
  };
}
