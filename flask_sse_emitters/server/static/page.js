/**
 * The subscriptions of this page: who reads them, and what happens while the page is away.
 *
 * A subscription waits until the server has named its reader; then the page shares a connection with other tabs of this
 * reader (see `tabs.js`). It leaves them while the browser keeps it for "back" or has frozen it.
 *
 * @module
 */

import { fetchReaders, OWN_CHANNEL, UNIDENTIFIED, UNTAGGED } from "./identity.js";
import { pause } from "./stream.js";
import { channelsOf } from "./subscription.js";
import { Tab } from "./tabs.js";

/** @typedef {import("./subscription.js").Subscription} Subscription */

/** After a failure, the server is asked again who reads after so long. */
const RETRY_MS = 3_000;

/** The result without a request, where each subscription has a connection of its own. @type {import("./identity.js").Readers} */
const NO_READERS = { tags: new Map(), refused: new Map() };

/** The subscriptions that may share a connection, at one address. */
export class PageSubscriptions {
  /** Subscriptions whose reader is known. @type {Set<Subscription>} */
  #admitted = new Set();
  /** Subscriptions whose reader the server has not named yet. @type {Set<Subscription>} */
  #pending = new Set();
  /** Ends all activity; null while the page is hidden away, or has no subscription. @type {AbortController | null} */
  #activity = null;
  /** Set while the server is asked who reads. @type {AbortSignal | null} */
  #identifying = null;
  /** @type {AbortController | null} */
  #listening = null;
  #key;
  #share;
  #ask;
  #tab;

  /**
   * @param {unknown[]} key tabs with the same key may share.
   * @param {string | false} share
   * @param {import("./stream.js").Ask} ask
   * @param {number} silence see `pump` in `stream.js`.
   */
  constructor(key, share, ask, silence) {
    this.#key = key;
    this.#share = share;
    this.#ask = ask;
    this.#tab = new Tab(this.#admitted, (...asked) => this.#ask(...asked), silence, {
      endAll: () => this.#endSubscriptions(() => true),
      removeClosed: () => this.#removeClosed(),
    });
  }

  /** @param {Subscription} subscription @param {import("./stream.js").Ask} [ask] with new headers. */
  add(subscription, ask = this.#ask) {
    this.#ask = ask;
    if (!this.#admitted.size && !this.#pending.size) this.#listen();
    this.#pending.add(subscription);
    this.#resume();
  }

  /** @param {Subscription} subscription */
  remove(subscription) {
    subscription.close();
    const wasPending = this.#pending.delete(subscription);
    if (!this.#admitted.delete(subscription) && !wasPending) return;
    if (this.#admitted.size) return this.#tab.join();
    this.#tab.leave();
    if (this.#pending.size) return;
    this.#listening?.abort();
    this.#suspend();
  }

  #listen() {
    if (typeof document === "undefined") return; // a worker
    const { signal } = (this.#listening = new AbortController());
    addEventListener("pagehide", () => this.#suspend(), { signal }); // else browsers could not keep it for "back"
    addEventListener("pageshow", () => this.#resume(), { signal });
    document.addEventListener("freeze", () => this.#suspend(), { signal });
    document.addEventListener("resume", () => this.#resume(), { signal });
    document.addEventListener("visibilitychange", () => document.hidden || this.#tab.join(), { signal });
  }

  #resume() {
    if (!this.#pending.size) return;
    this.#activity ??= new AbortController();
    this.#identify(this.#activity.signal);
  }

  /** Leave the other tabs while the page is away; the server is asked again who reads once it is back. */
  #suspend() {
    this.#activity?.abort();
    this.#activity = null;
    this.#tab.leave();
    this.#pending = new Set([...this.#admitted, ...this.#pending]);
    this.#admitted.clear();
  }

  /** Ask who reads, until that is known for all subscriptions. @param {AbortSignal} signal */
  async #identify(signal) {
    if (this.#identifying === signal) return;
    this.#identifying = signal;
    for (let failures = 0; this.#pending.size && !signal.aborted; ) {
      await null; // subscriptions made in one task share one request
      const asking = [...this.#pending];
      const channels = channelsOf([...this.#admitted, ...asking]);
      const readers = this.#share === false ? NO_READERS : await fetchReaders(this.#ask, channels, signal).catch(() => null);
      if (signal.aborted) return;
      if (readers) this.#take(asking, readers);
      else await pause(RETRY_MS, ++failures, signal);
    }
    if (this.#identifying === signal) this.#identifying = null;
  }

  /**
   * Admit the subscriptions whose readers are known now.
   *
   * @param {Subscription[]} asking
   * @param {import("./identity.js").Readers} readers
   */
  #take(asking, { tags, refused }) {
    for (const [channel, { status, message }] of refused) {
      for (const each of [...this.#admitted, ...asking]) each.giveUp({ channel, status, message });
    }
    const added = asking.filter((each) => this.#pending.delete(each) && this.#admitted.add(each));
    this.#endSubscriptions((each) => !each.confirmReader(tags));
    this.#removeClosed();
    if (!this.#admitted.size) return;
    this.#tab.enter(this.#nameFor(channelsOf(this.#admitted), tags), added);
  }

  /**
   * Return the name of the lock and the BroadcastChannel that tabs of the same reader share. Of each tag it contains the
   * last part, which is the oldest, so that tabs find each other while the server changes its SECRET_KEY.
   *
   * @param {string[]} channels
   * @param {Map<string, string>} tags
   * @returns {string} "" if this tab shares with no other.
   */
  #nameFor(channels, tags) {
    const reader = (/** @type {string} */ channel) => (tags.get(channel) ?? UNTAGGED).split(".").at(-1);
    const readers = new Set(channels.map(reader));
    if (!this.#share && readers.has(UNTAGGED)) return "";
    readers.delete(UNIDENTIFIED);
    // A rule may name several readers; tabs with the same ones can still differ in the own channel that they read.
    const own = readers.size > 1 && channels.includes(OWN_CHANNEL) ? [reader(OWN_CHANNEL)] : [];
    return JSON.stringify([...this.#key, [...readers].sort(), ...own]);
  }

  /** End subscriptions that have another reader now, and notify the page. @param {(s: Subscription) => boolean} isOver */
  #endSubscriptions(isOver) {
    const over = [...this.#admitted].filter(isOver);
    for (const each of over) this.remove(each);
    for (const each of over) each.reportReaderChange();
  }

  #removeClosed() {
    for (const each of this.#admitted) if (each.state === "closed") this.remove(each);
  }
}
