/**
 * What React and Vue have in common: a subscription that calls its owner's newest callbacks, and what it has shown.
 *
 * @module
 */

import { subscribe } from "../../flask_sse_emitters/server/static/sse-emitters.js";

/** @typedef {import("../../flask_sse_emitters/server/static/sse-emitters.js").ChannelEvent} ChannelEvent */
/** @typedef {import("../../flask_sse_emitters/server/static/sse-emitters.js").ChannelSubscription} ChannelSubscription */
/** @typedef {import("../../flask_sse_emitters/server/static/sse-emitters.js").Options} Options */
/** @typedef {import("../../flask_sse_emitters/server/static/sse-emitters.js").Refusal} Refusal */
/** @typedef {import("../../flask_sse_emitters/server/static/sse-emitters.js").State} State */

/**
 * The options of `subscribe`, of which callbacks and headers may be others at each render; and an event's name, to see
 * only events of this name.
 *
 * @typedef {Options & { name?: string }} ChannelOptions
 */

/** How many events are kept, 100 if left out. @typedef {ChannelOptions & { limit?: number }} EventsOptions */

/** One name of a channel, several, or none for now. @typedef {string | readonly string[] | null | undefined} Channels */

/**
 * What a component shows of a subscription.
 *
 * @typedef {object} Shown
 * @property {State} state
 * @property {Refusal | null} error the last channel that the server refused.
 * @property {number} gaps how many gaps there were: fetch the state again after one.
 * @property {readonly ChannelEvent[]} events the newest events, oldest first.
 */

/** What is shown before anything has come. @type {Shown} */
export const NOTHING_YET = Object.freeze({ state: "connecting", error: null, gaps: 0, events: [] });

/** What is shown where no channel is named. @type {Shown} */
export const NO_CHANNEL = Object.freeze({ ...NOTHING_YET, state: "closed" });

/** @param {Channels} channels @returns {string[]} */
export function namesOf(channels) {
  return [channels ?? []].flat();
}

/**
 * Return a text that is another one where the subscription has to be another one.
 *
 * @param {string | URL} url
 * @param {Channels} channels
 * @param {ChannelOptions} options
 */
export function keyOf(url, channels, { name, share, withCredentials, silence }) {
  return JSON.stringify([String(url), namesOf(channels), name, share, withCredentials, silence]);
}

/**
 * Subscribe, and change what is shown with all that happens.
 *
 * @param {string | URL} url
 * @param {string[]} channels
 * @param {() => EventsOptions} options returns the newest ones.
 * @param {(change: (shown: Shown) => Shown) => void} show
 * @returns {() => void} a function that ends this: nothing is called afterwards.
 */
export function follow(url, channels, options, show) {
  let isOver = false;
  const { name, since, share, withCredentials, silence, headers } = options();
  /** @param {(shown: Shown) => Partial<Shown>} change */
  const update = (change) => isOver || show((shown) => ({ ...shown, ...change(shown) }));
  const subscription = subscribe(url, channels, {
    since,
    share,
    withCredentials,
    silence,
    headers: headers && (() => newestOf(options().headers)),
    onEvent(event) {
      if (isOver || (name !== undefined && event.name !== name)) return;
      const { limit = 100 } = options();
      update(({ events }) => ({ events: [...events, event].slice(-limit) }));
      options().onEvent?.(event);
    },
    onGap(gap) {
      if (isOver) return;
      update(({ gaps }) => ({ gaps: gaps + 1 }));
      options().onGap?.(gap);
    },
    onError(error) {
      if (isOver) return;
      update(() => ({ error }));
      options().onError?.(error);
    },
    onState(state) {
      if (isOver) return;
      update(() => ({ state }));
      options().onState?.(state);
    },
    onReaderChange() {
      if (isOver) return;
      update(() => ({ events: [] })); // they are not for whoever sits there now
      options().onReaderChange?.();
    },
    onEnd: (end) => isOver || options().onEnd?.(end),
  });
  return () => {
    isOver = true;
    subscription.close();
  };
}

/** @param {Options["headers"]} headers */
const newestOf = (headers) => (typeof headers === "function" ? headers() : (headers ?? {}));
