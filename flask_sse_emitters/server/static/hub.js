/**
 * What one page has to do with the other tabs.
 *
 * Of the tabs that read from one address, one leads: the one that holds a Web Lock. It has a single stream of all
 * channels that any of them wants, and tells what comes through a BroadcastChannel. Where it goes, however suddenly,
 * the lock passes on. Nothing is lost then, because each subscription knows how far it is in each channel (an id is
 * `<epoch>-<offset>`, and those of a stream of several channels are joined with commas): the leader begins where the
 * one is who is farthest back, and everybody drops what they have had. Each message of a leader bears its term, and
 * each event the id of the one before it, so that what comes too late is known, and what was lost is asked for again.
 *
 * Tabs share with those of the same reader alone: the lock and the channel are named by the tags with which the server
 * says who reads, and a leader whose stream would be somebody else's ends it, and tells its page (see `whose.js`).
 *
 * Without Web Locks, as in an insecure context, each page has a connection of its own, and all else is the same.
 *
 * @module
 */

import { Leader } from "./leader.js";
import { isMessage } from "./messages.js";
import { lower, pause } from "./stream.js";
import { ANYBODY, askWhose, byChannel, isSameReader, OWN, SOMEBODY } from "./whose.js";

/** @typedef {import("./messages.js").Ids} Ids */
/** @typedef {import("./messages.js").Join} Join */
/** @typedef {import("./messages.js").Leave} Leave */
/** @typedef {import("./messages.js").OfLeader} OfLeader */
/** @typedef {import("./subscription.js").Subscription} Subscription */

/** Milliseconds after which the server is asked again who reads this page. */
const RETRY = 3_000;

/** Milliseconds: a leader that does not answer for so long hangs, and is deposed. */
const PATIENCE = 10_000;

/** All that this page reads from one address. */
export class Hub {
  /** Those that take part. @type {Set<Subscription>} */
  #admitted = new Set();
  /** Those for which the server is to say first who reads. @type {Set<Subscription>} */
  #pending = new Set();
  /** Ends what this page does here; null while the page is away, or wants nothing. @type {AbortController | null} */
  #here = null;
  /** While the server is asked who reads. @type {AbortSignal | null} */
  #asking = null;
  /** Who reads the stream of the leader in this tab: a tag by channel. @type {Map<string, string>} */
  #readAs = new Map();
  /** @type {BroadcastChannel | null} */
  #bus = null;
  /** @type {Leader | null} */
  #leader = null;
  /** Ends what this tab has to do with the others; null while it has nothing. @type {AbortController | null} */
  #leaving = null;
  /** @type {AbortController | null} */
  #listening = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #patience;
  #name = ""; // that tabs of the same reader share; "" where none is shared
  #tab = "";
  #term = 0;
  #isKnown = false; // the others can see when this tab dies
  #isJoining = false;
  #key;
  #share;
  #ask;
  #silence;

  /**
   * @param {unknown[]} key tabs whose hubs have the same may share.
   * @param {string | false} share
   * @param {import("./stream.js").Ask} ask
   * @param {number} silence
   */
  constructor(key, share, ask, silence) {
    this.#key = key;
    this.#share = share;
    this.#ask = ask;
    this.#silence = silence;
  }

  /** @param {Subscription} subscription @param {import("./stream.js").Ask} [ask] with other headers than before. */
  add(subscription, ask = this.#ask) {
    this.#ask = ask;
    if (!this.#admitted.size && !this.#pending.size) this.#listen();
    this.#pending.add(subscription);
    this.#arrive();
  }

  /** @param {Subscription} subscription */
  remove(subscription) {
    subscription.close();
    const wasPending = this.#pending.delete(subscription);
    if (!this.#admitted.delete(subscription) && !wasPending) return;
    if (this.#admitted.size) return this.#join();
    this.#leave();
    if (this.#pending.size) return;
    this.#listening?.abort();
    this.#depart();
  }

  #listen() {
    if (typeof document === "undefined") return; // a worker
    const { signal } = (this.#listening = new AbortController());
    addEventListener("pagehide", () => this.#depart(), { signal }); // else browsers would not keep the page for "back"
    addEventListener("pageshow", () => this.#arrive(), { signal });
    document.addEventListener("freeze", () => this.#depart(), { signal });
    document.addEventListener("resume", () => this.#arrive(), { signal });
    document.addEventListener("visibilitychange", () => document.hidden || this.#join(), { signal });
  }

  #arrive() {
    if (!this.#pending.size) return;
    this.#here ??= new AbortController();
    this.#admit(this.#here.signal);
  }

  /** Leave the others; the server is asked again who reads when the page is back. */
  #depart() {
    this.#here?.abort();
    this.#here = null;
    this.#leave();
    this.#pending = new Set([...this.#admitted, ...this.#pending]);
    this.#admitted.clear();
  }

  /** Learn who reads this page, until that is known of all subscriptions. @param {AbortSignal} signal */
  async #admit(signal) {
    if (this.#asking === signal) return;
    this.#asking = signal;
    for (let failures = 0; this.#pending.size && !signal.aborted; ) {
      await null; // all that subscribe in one go ask once
      const asking = [...this.#pending];
      const channels = channelsOf([...this.#admitted, ...asking]);
      const whose = this.#share === false ? NOT_ASKED : await askWhose(this.#ask, channels, signal).catch(() => null);
      if (signal.aborted) return;
      if (whose) this.#take(asking, whose);
      else await pause(RETRY, ++failures, signal);
    }
    if (this.#asking === signal) this.#asking = null;
  }

  /** Let those take part that were asked about. @param {Subscription[]} asking @param {import("./whose.js").Whose} whose */
  #take(asking, { tags, refused }) {
    for (const [channel, { status, message }] of refused) {
      for (const each of [...this.#admitted, ...asking]) each.giveUp({ channel, status, message });
    }
    const added = asking.filter((each) => this.#pending.delete(each) && this.#admitted.add(each));
    this.#endWhere((each) => !each.adopt(tags));
    this.#removeClosed();
    if (!this.#admitted.size) return;
    const name = this.#nameFor(channelsOf(this.#admitted), tags);
    if (this.#leaving && name === this.#name) return this.#join(added);
    this.#leave();
    this.#name = name;
    this.#enter();
  }

  /**
   * Name what tabs of the same reader share: the lock and the BroadcastChannel. Each tag counts by its last part, which
   * it has had longest, so that tabs find each other while the server changes its SECRET_KEY.
   *
   * @param {string[]} channels
   * @param {Map<string, string>} tags
   * @returns {string} "" for a tab that shares with no other.
   */
  #nameFor(channels, tags) {
    const reader = (/** @type {string} */ channel) => (tags.get(channel) ?? SOMEBODY).split(".").at(-1);
    const readers = new Set(channels.map(reader));
    if (!this.#share && readers.has(SOMEBODY)) return "";
    readers.delete(ANYBODY);
    // Where a rule names several readers, those who have the same ones may differ in whose private channel they read.
    const own = readers.size > 1 && channels.includes(OWN) ? [reader(OWN)] : [];
    return JSON.stringify([...this.#key, [...readers].sort(), ...own]);
  }

  /** End subscriptions whose reader is another by now, and tell the page. @param {(s: Subscription) => boolean} isOver */
  #endWhere(isOver) {
    const over = [...this.#admitted].filter(isOver);
    for (const each of over) this.remove(each);
    for (const each of over) each.tellReaderChange();
  }

  #removeClosed() {
    for (const each of this.#admitted) if (each.state === "closed") this.remove(each);
  }

  #enter() {
    const { signal } = (this.#leaving = new AbortController());
    this.#tab = crypto.getRandomValues(new Uint32Array(4)).join("-");
    if (!this.#name || typeof BroadcastChannel === "undefined") return this.#lead(signal);
    this.#bus = new BroadcastChannel(this.#name);
    this.#bus.onmessage = ({ data }) => this.#hear(data);
    this.#compete(signal);
  }

  #leave() {
    if (!this.#leaving) return;
    this.#send({ type: "leave", tab: this.#tab });
    this.#leaving.abort();
    this.#leaving = null;
    this.#isKnown = this.#isJoining = false;
    this.#stand();
    this.#bus?.close();
    this.#bus = null;
    clearTimeout(this.#patience);
    for (const each of this.#admitted) each.enter("connecting");
  }

  /** Hold the lock that shows that this tab lives, and wait for that of the leader. @param {AbortSignal} signal */
  async #compete(signal) {
    const locks = globalThis.navigator?.locks;
    const isKnown = new Promise((resolve, reject) => {
      locks.request(`${this.#name} ${this.#tab}`, () => (resolve(null), ended(signal))).catch(reject);
    });
    try {
      await isKnown;
    } catch {
      if (signal.aborted) return;
      this.#bus?.close(); // there are no locks here, as in an insecure context: this tab is on its own
      this.#bus = null;
      return this.#lead(signal);
    }
    if (signal.aborted) return;
    this.#isKnown = true;
    this.#join(this.#admitted);
    while (!signal.aborted) await this.#request({ signal }, signal);
  }

  /** Lead while this tab has the lock. @param {LockOptions} options @param {AbortSignal} signal */
  async #request(options, signal) {
    /** @type {Leader | null} */
    let leader = null;
    try {
      await navigator.locks.request(this.#name, options, () => {
        if (signal.aborted) return;
        this.#lead(signal);
        leader = this.#leader;
        return ended(signal);
      });
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "AbortError")) throw error;
      if (leader && leader === this.#leader) this.#stand(); // somebody has stolen the lock
    }
  }

  /** @param {AbortSignal} signal */
  #lead(signal) {
    this.#stand();
    this.#isKnown = true;
    this.#term = Math.max(Date.now(), this.#term + 1);
    this.#readAs.clear();
    /** @type {import("./stream.js").Open} */
    const open = (...asked) => this.#open(...asked);
    this.#leader = new Leader(this.#term, open, this.#silence, (message) => this.#tell(message, signal));
    this.#tell({ type: "hello", term: this.#term }, signal);
  }

  /** Open a stream for the leader, unless it would be somebody else's. @type {import("./stream.js").Open} */
  async #open(channels, lastEventId, signal) {
    const { body, tags } = await this.#ask(channels, lastEventId, signal);
    signal.throwIfAborted(); // else an answer to a leader that is no more would be held against the next
    const isSame = channels.every((channel, index) => {
      const known = this.#readAs.get(channel);
      if (known === undefined) return true;
      return tags ? isSameReader(known, tags[index]) : [ANYBODY, SOMEBODY].includes(known);
    });
    if (isSame) {
      // What the server could not say before is known from now on.
      for (const [channel, tag] of byChannel(channels, tags)) this.#readAs.set(channel, tag);
      for (const each of this.#admitted) each.adopt(this.#readAs);
      return /** @type {ReadableStream<Uint8Array>} */ (body);
    }
    body?.cancel().catch(() => {});
    if (tags) this.#endWhere(() => true);
    throw new Error(tags ? "somebody else reads now" : "this server does not say who reads: the next may");
  }

  #stand() {
    this.#leader?.stop();
    this.#leader = null;
  }

  /** What a leader says. @param {OfLeader} message @param {AbortSignal} signal */
  #tell(message, signal) {
    if (signal.aborted) return;
    this.#bus?.postMessage(message);
    queueMicrotask(() => signal.aborted || this.#hear(message)); // a channel does not bring it to the one who says it
  }

  /** @param {Join | Leave} message */
  #send(message) {
    this.#bus?.postMessage(message);
    this.#attend(message);
  }

  /** Say what this tab wants, and where those are who are not in step. @param {Iterable<Subscription>} [behind] */
  #join(behind = []) {
    if (!this.#isKnown || !this.#leaving) return;
    const { signal } = this.#leaving;
    const since = new Map();
    /** @type {Ids} */
    const claims = [];
    for (const { positions, claims: claimed } of behind) {
      for (const [channel, id] of positions) {
        if (claimed.has(channel)) claims.push([channel, id]);
        else lower(since, channel, id);
      }
    }
    this.#isJoining = true;
    clearTimeout(this.#patience);
    if (this.#bus) this.#patience = setTimeout(() => this.#request({ steal: true }, signal), PATIENCE);
    const channels = channelsOf(this.#admitted);
    const tags = [...new Map([...this.#admitted].flatMap((each) => [...each.tags]))];
    this.#send({ type: "join", tab: this.#tab, term: this.#term, channels, tags, since: [...since], claims });
  }

  /** What comes from another tab, or from the leader in this one. @param {unknown} message */
  #hear(message) {
    if (!isMessage(message)) return;
    if (message.type === "join" || message.type === "leave") return this.#attend(message);
    if (message.term > this.#term || message.type === "hello") {
      if (message.term > this.#term && this.#leader?.term !== message.term) this.#stand(); // its lock was stolen
      this.#term = Math.max(this.#term, message.term);
      this.#join(this.#admitted);
    }
    if (message.term < this.#term) return;
    if (message.type === "at" && message.to === this.#tab) {
      clearTimeout(this.#patience);
      this.#isJoining = false;
    }
    const isInStep = [...this.#admitted].map((each) => each.hear(message)).every(Boolean);
    this.#removeClosed();
    if (!isInStep && !this.#isJoining) this.#join(this.#admitted);
  }

  /** What tabs say to the leader. @param {Join | Leave} message */
  #attend(message) {
    const leader = this.#leader;
    if (!leader) return;
    if (message.type === "leave") return leader.leave(message.tab);
    if (message.term > leader.term && this.#leaving) {
      // The clock was set back between two leaders.
      this.#term = leader.term = message.term + 1;
      return this.#tell({ type: "hello", term: this.#term }, this.#leaving.signal);
    }
    if (this.#bus && message.tab !== this.#tab && !leader.knows(message.tab)) this.#watch(leader, message.tab);
    for (const [channel, tag] of message.tags) if (!this.#readAs.has(channel)) this.#readAs.set(channel, tag);
    leader.join(message);
  }

  /** Have a tab count as gone once it no longer holds its lock. @param {Leader} leader @param {string} tab */
  #watch(leader, tab) {
    navigator.locks.request(`${this.#name} ${tab}`, { signal: leader.over }, () => leader.leave(tab)).catch(() => {});
  }
}

/** Where each subscription has a connection of its own. @type {import("./whose.js").Whose} */
const NOT_ASKED = { tags: new Map(), refused: new Map() };

/** @param {Iterable<Subscription>} subscriptions */
function channelsOf(subscriptions) {
  return [...new Set([...subscriptions].flatMap(({ channels }) => [...channels]))];
}

/** @param {AbortSignal} signal @returns {Promise<void>} */
function ended(signal) {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve()));
}
