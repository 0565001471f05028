/**
 * Channels in Vue.
 *
 * All components of a page, and all tabs of a browser, share one connection. Addresses, channels and options may be refs
 * or getters.
 *
 * @module
 */

import { computed, shallowRef, toValue, watch } from "vue";
import { follow, keyOf, namesOf, NO_CHANNEL, NOTHING_YET } from "./following.js";

/** @typedef {import("./following.js").ChannelEvent} ChannelEvent */
/** @typedef {import("./following.js").ChannelOptions} ChannelOptions */
/** @typedef {import("./following.js").Channels} Channels */
/** @typedef {import("./following.js").EventsOptions} EventsOptions */
/** @typedef {import("./following.js").Refusal} Refusal */
/** @typedef {import("./following.js").Shown} Shown */
/** @typedef {import("./following.js").State} State */
/**
 * @template T
 * @typedef {import("vue").ComputedRef<T>} ComputedRef
 */
/**
 * @template T
 * @typedef {import("vue").MaybeRefOrGetter<T>} MaybeRefOrGetter
 */

/**
 * Subscribe to channels while the component is mounted, or its scope is active: the newest event.
 *
 * Several events may come before the page is drawn, which shows the last of them: pass `onEvent` to get each, or take
 * `useEvents`.
 *
 * @example
 * const { state, event } = useChannel("/events", "price", { name: "changed" });
 * const price = computed(() => event.value?.json().price);
 *
 * @param {MaybeRefOrGetter<string | URL>} url the address of the blueprint of the channels.
 * @param {MaybeRefOrGetter<Channels>} channels names, one or more; nothing is subscribed while there is none.
 * @param {MaybeRefOrGetter<ChannelOptions>} [options]
 * @returns {{ state: ComputedRef<State>, event: ComputedRef<ChannelEvent | null>, error: ComputedRef<Refusal | null>,
 *   gaps: ComputedRef<number> }}
 */
export function useChannel(url, channels, options = {}) {
  const [shown] = useSubscription(url, channels, () => ({ ...toValue(options), limit: 1 }));
  return { ...partsOf(shown), event: computed(() => shown.value.events.at(-1) ?? null) };
}

/**
 * Subscribe to channels while the component is mounted, or its scope is active: the events that have come since, oldest
 * first.
 *
 * @example
 * const { events } = useEvents("/events", "board", { name: "note", limit: 20 });
 *
 * @param {MaybeRefOrGetter<string | URL>} url the address of the blueprint of the channels.
 * @param {MaybeRefOrGetter<Channels>} channels names, one or more; nothing is subscribed while there is none.
 * @param {MaybeRefOrGetter<EventsOptions>} [options]
 * @returns {{ state: ComputedRef<State>, events: ComputedRef<readonly ChannelEvent[]>,
 *   error: ComputedRef<Refusal | null>, gaps: ComputedRef<number>, clear: () => void }}
 */
export function useEvents(url, channels, options = {}) {
  const [shown, clear] = useSubscription(url, channels, () => toValue(options));
  return { ...partsOf(shown), events: computed(() => shown.value.events), clear };
}

/** @param {import("vue").ShallowRef<Shown>} shown */
function partsOf(shown) {
  return {
    state: computed(() => shown.value.state),
    error: computed(() => shown.value.error),
    gaps: computed(() => shown.value.gaps),
  };
}

/**
 * @param {MaybeRefOrGetter<string | URL>} url
 * @param {MaybeRefOrGetter<Channels>} channels
 * @param {() => EventsOptions} options
 * @returns {[shown: import("vue").ShallowRef<Shown>, clear: () => void]}
 */
function useSubscription(url, channels, options) {
  const shown = shallowRef(NOTHING_YET);
  const begin = (/** @type {string} */ _key, /** @type {unknown} */ _old, /** @type {(end: () => void) => void} */ onCleanup) => {
    const names = namesOf(toValue(channels));
    shown.value = names.length ? NOTHING_YET : NO_CHANNEL;
    if (!names.length || typeof window === "undefined") return; // a server renders the page
    onCleanup(follow(toValue(url), names, options, (change) => (shown.value = change(shown.value))));
  };
  watch(() => keyOf(toValue(url), toValue(channels), options()), begin, { immediate: true });
  return [shown, () => (shown.value = { ...shown.value, events: [] })];
}
