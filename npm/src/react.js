/**
 * Channels in React.
 *
 * All components of a page, and all tabs of a browser, share one connection. Callbacks may be written in place: a new one
 * at each render does not subscribe anew.
 *
 * @module
 */

import { useCallback, useEffect, useRef, useState } from "react";
import { follow, keyOf, namesOf, NO_CHANNEL, NOTHING_YET } from "./following.js";

/** @typedef {import("./following.js").ChannelEvent} ChannelEvent */
/** @typedef {import("./following.js").ChannelOptions} ChannelOptions */
/** @typedef {import("./following.js").Channels} Channels */
/** @typedef {import("./following.js").EventsOptions} EventsOptions */
/** @typedef {import("./following.js").Refusal} Refusal */
/** @typedef {import("./following.js").State} State */

/**
 * Subscribe to channels while the component is mounted, and render it with the newest event.
 *
 * Several events may come before a render, which shows the last of them: pass `onEvent` to get each, or take `useEvents`.
 *
 * @example
 * const { state, event } = useChannel("/events", "price", { name: "changed" });
 * return <output>{state === "open" ? event?.json().price : "…"}</output>;
 *
 * @param {string | URL} url the address of the blueprint of the channels.
 * @param {Channels} channels names, one or more; nothing is subscribed while there is none.
 * @param {ChannelOptions} [options]
 * @returns {{ state: State, event: ChannelEvent | null, error: Refusal | null, gaps: number }}
 */
export function useChannel(url, channels, options = {}) {
  const [{ events, ...shown }] = useSubscription(url, channels, { ...options, limit: 1 });
  return { ...shown, event: events.at(-1) ?? null };
}

/**
 * Subscribe to channels while the component is mounted, and render it with the events that have come since, oldest first.
 *
 * @example
 * const { events } = useEvents("/events", "board", { name: "note", limit: 20 });
 * return <ul>{events.map((event) => <li key={event.id}>{event.json().text}</li>)}</ul>;
 *
 * @param {string | URL} url the address of the blueprint of the channels.
 * @param {Channels} channels names, one or more; nothing is subscribed while there is none.
 * @param {EventsOptions} [options]
 * @returns {{ state: State, events: readonly ChannelEvent[], error: Refusal | null, gaps: number, clear: () => void }}
 */
export function useEvents(url, channels, options = {}) {
  const [shown, change] = useSubscription(url, channels, options);
  const clear = useCallback(() => change((old) => ({ ...old, shown: { ...old.shown, events: [] } })), [change]);
  return { ...shown, clear };
}

/** @typedef {{ key: string, shown: import("./following.js").Shown }} Kept */

/**
 * @param {string | URL} url
 * @param {Channels} channels
 * @param {EventsOptions} options
 * @returns {[import("./following.js").Shown, (change: (old: Kept) => Kept) => void]}
 */
function useSubscription(url, channels, options) {
  const names = namesOf(channels);
  const key = keyOf(url, names, options);
  /** @type {Kept} */
  const fresh = { key, shown: NOTHING_YET };
  const [kept, keep] = useState(fresh);
  const newest = useRef(options);
  useEffect(() => {
    newest.current = options;
  });
  useEffect(() => {
    if (!names.length) return;
    keep((old) => (old.key === key && old.shown === NOTHING_YET ? old : fresh)); // one that is shown again has what it had
    return follow(url, names, () => newest.current, (change) => {
      keep((old) => ({ key, shown: change(old.key === key ? old.shown : NOTHING_YET) }));
    });
  }, [key]);
  if (!names.length) return [NO_CHANNEL, keep];
  return [kept.key === key ? kept.shown : NOTHING_YET, keep]; // never what belongs to other channels
}
