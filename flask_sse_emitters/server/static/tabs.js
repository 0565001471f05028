/**
 * How the tabs of one reader share a connection.
 *
 * Of the tabs that read from one address, the one that holds a Web Lock is the leader. It opens a single stream of all
 * channels that any tab wants, and sends what arrives to all of them through a BroadcastChannel. When it closes, however
 * suddenly, another tab gets the lock. No event is lost, because each subscription knows its position in each channel:
 * the new leader begins at the earliest position, and each subscription drops events that it has had. A leader's
 * messages carry its term, and each event the id of the one before it, so that late messages are ignored, and lost ones
 * requested again.
 *
 * Only tabs of the same reader share: the names of the lock and the BroadcastChannel contain the reader's tags from the
 * server. A leader ends a stream that belongs to another reader, and notifies its page (see `identity.js`).
 *
 * Without Web Locks, as in an insecure context, each page has a connection of its own; all else is the same.
 *
 * @module
 */

import { Leader } from "./leader.js";
import { isMessage } from "./messages.js";
import { keepEarliest } from "./positions.js";
import { Ended } from "./stream.js";
import { channelsOf } from "./subscription.js";
import { isSameReader, tagsByChannel, UNIDENTIFIED, UNTAGGED } from "./identity.js";

/** @typedef {import("./messages.js").Ids} Ids */
/** @typedef {import("./messages.js").Join} Join */
/** @typedef {import("./messages.js").Leave} Leave */
/** @typedef {import("./messages.js").LeaderMessage} LeaderMessage */
/** @typedef {import("./subscription.js").Subscription} Subscription */

/** A leader that does not answer for so long hangs, and loses the lock. */
const LEADER_TIMEOUT_MS = 10_000;

/** This tab among those that share a connection. */
export class Tab {
  /** The reader of this tab's stream as leader: a tag by channel. @type {Map<string, string>} */
  #readerTags = new Map();
  /** @type {BroadcastChannel | null} */
  #broadcastChannel = null;
  /** @type {Leader | null} */
  #leader = null;
  /** Ends this tab's part among the others; null while it has none. @type {AbortController | null} */
  #leaving = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #leaderTimeout;
  #name = ""; // shared by tabs of the same reader; "" where this tab shares with none
  #id = "";
  #term = 0;
  #isPresent = false; // this tab holds its lock, which shows the others that it lives
  #isJoining = false;
  #subscriptions;
  #ask;
  #silence;
  #owner;

  /**
   * @param {Set<Subscription>} subscriptions that share; their owner changes this set.
   * @param {import("./stream.js").Ask} ask
   * @param {number} silence see `pump` in `stream.js`.
   * @param {{ endAll: () => void, removeClosed: () => void }} owner of the subscriptions: `endAll` because they have
   *   another reader now, `removeClosed` after a message.
   */
  constructor(subscriptions, ask, silence, owner) {
    this.#subscriptions = subscriptions;
    this.#ask = ask;
    this.#silence = silence;
    this.#owner = owner;
  }

  /**
   * Share with the tabs of this name, instead of those of another.
   *
   * @param {string} name "" to share with none.
   * @param {Subscription[]} added new ones, if it shares with these tabs already.
   */
  enter(name, added) {
    if (this.#leaving && name === this.#name) return this.join(added);
    this.leave();
    this.#name = name;
    const { signal } = (this.#leaving = new AbortController());
    this.#id = crypto.getRandomValues(new Uint32Array(4)).join("-");
    if (!this.#name || typeof BroadcastChannel === "undefined") return this.#becomeLeader(signal);
    this.#broadcastChannel = new BroadcastChannel(this.#name);
    this.#broadcastChannel.onmessage = ({ data }) => this.#receive(data);
    this.#awaitLeadership(signal);
  }

  /** Share with no tab any more, and end the stream if this tab is the leader. Idempotent. */
  leave() {
    if (!this.#leaving) return;
    this.#sendRequest({ type: "leave", tab: this.#id });
    this.#leaving.abort();
    this.#leaving = null;
    this.#isPresent = this.#isJoining = false;
    this.#stepDown();
    this.#broadcastChannel?.close();
    this.#broadcastChannel = null;
    clearTimeout(this.#leaderTimeout);
    for (const each of this.#subscriptions) each.enter("connecting");
  }

  /** Hold the lock that shows that this tab lives, and wait for the leader's lock. @param {AbortSignal} signal */
  async #awaitLeadership(signal) {
    const locks = globalThis.navigator?.locks;
    const isPresent = new Promise((resolve, reject) => {
      locks.request(`${this.#name} ${this.#id}`, () => (resolve(null), ended(signal))).catch(reject);
    });
    try {
      await isPresent;
    } catch {
      if (signal.aborted) return;
      this.#broadcastChannel?.close(); // no locks, as in an insecure context: this tab shares with none
      this.#broadcastChannel = null;
      return this.#becomeLeader(signal);
    }
    if (signal.aborted) return;
    this.#isPresent = true;
    this.join(this.#subscriptions);
    while (!signal.aborted) await this.#requestLock({ signal }, signal);
  }

  /** Lead while this tab holds the lock. @param {LockOptions} options @param {AbortSignal} signal */
  async #requestLock(options, signal) {
    /** @type {Leader | null} */
    let leader = null;
    try {
      await navigator.locks.request(this.#name, options, () => {
        if (signal.aborted) return;
        this.#becomeLeader(signal);
        leader = this.#leader;
        return ended(signal);
      });
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "AbortError")) throw error;
      if (leader && leader === this.#leader) this.#stepDown(); // another tab has stolen the lock
    }
  }

  /** @param {AbortSignal} signal */
  #becomeLeader(signal) {
    this.#stepDown();
    this.#isPresent = true;
    this.#term = Math.max(Date.now(), this.#term + 1);
    this.#readerTags.clear();
    /** @type {import("./stream.js").Open} */
    const open = (...asked) => this.#open(...asked);
    this.#leader = new Leader(this.#term, open, this.#silence, (message) => this.#broadcast(message, signal));
    this.#broadcast({ type: "hello", term: this.#term }, signal);
  }

  /** Open a stream for the leader, unless it belongs to another reader. @type {import("./stream.js").Open} */
  async #open(channels, lastEventId, signal) {
    const { body, tags } = await this.#ask(channels, lastEventId, signal);
    signal.throwIfAborted(); // else the tags of a former leader's request would count for the next
    const isSame = channels.every((channel, index) => {
      const known = this.#readerTags.get(channel);
      if (known === undefined) return true;
      return tags ? isSameReader(known, tags[index]) : [UNIDENTIFIED, UNTAGGED].includes(known);
    });
    if (isSame) {
      // The server may name readers that it could not name before.
      for (const [channel, tag] of tagsByChannel(channels, tags)) this.#readerTags.set(channel, tag);
      for (const each of this.#subscriptions) each.confirmReader(this.#readerTags);
      if (!body) throw new Ended();
      return body;
    }
    body?.cancel().catch(() => {});
    if (tags) this.#owner.endAll();
    throw new Error(tags ? "another reader is logged in now" : "this server does not name the reader: the next may");
  }

  #stepDown() {
    this.#leader?.stop();
    this.#leader = null;
  }

  /** Send a leader's message to all tabs, this one included. @param {LeaderMessage} message @param {AbortSignal} signal */
  #broadcast(message, signal) {
    if (signal.aborted) return;
    this.#broadcastChannel?.postMessage(message);
    queueMicrotask(() => signal.aborted || this.#receive(message)); // a BroadcastChannel does not deliver to its sender
  }

  /** @param {Join | Leave} message */
  #sendRequest(message) {
    this.#broadcastChannel?.postMessage(message);
    this.#receiveRequest(message);
  }

  /**
   * Send the leader the channels that this tab wants, and the positions of subscriptions that lag.
   *
   * @param {Iterable<Subscription>} [behind]
   */
  join(behind = []) {
    if (!this.#isPresent || !this.#leaving) return;
    const { signal } = this.#leaving;
    const since = new Map();
    /** @type {Ids} */
    const claims = [];
    for (const { positions, claims: claimed } of behind) {
      for (const [channel, id] of positions) {
        if (claimed.has(channel)) claims.push([channel, id]);
        else keepEarliest(since, channel, id);
      }
    }
    this.#isJoining = true;
    clearTimeout(this.#leaderTimeout);
    if (this.#broadcastChannel) this.#leaderTimeout = setTimeout(() => this.#requestLock({ steal: true }, signal), LEADER_TIMEOUT_MS);
    const channels = channelsOf(this.#subscriptions);
    const tags = [...new Map([...this.#subscriptions].flatMap((each) => [...each.tags]))];
    this.#sendRequest({ type: "join", tab: this.#id, term: this.#term, channels, tags, since: [...since], claims });
  }

  /** Receive a message of another tab, or of the leader in this one. @param {unknown} message */
  #receive(message) {
    if (!isMessage(message)) return;
    if (message.type === "join" || message.type === "leave") return this.#receiveRequest(message);
    if (message.term > this.#term || message.type === "hello") {
      if (message.term > this.#term && this.#leader?.term !== message.term) this.#stepDown(); // its lock was stolen
      this.#term = Math.max(this.#term, message.term);
      this.join(this.#subscriptions);
    }
    if (message.term < this.#term) return;
    if (message.type === "at" && message.to === this.#id) {
      clearTimeout(this.#leaderTimeout);
      this.#isJoining = false;
    }
    const isInStep = [...this.#subscriptions].map((each) => each.receive(message)).every(Boolean);
    this.#owner.removeClosed();
    if (!isInStep && !this.#isJoining) this.join(this.#subscriptions);
  }

  /** Receive a message for the leader. @param {Join | Leave} message */
  #receiveRequest(message) {
    const leader = this.#leader;
    if (!leader) return;
    if (message.type === "leave") return leader.leave(message.tab);
    if (message.term > leader.term && this.#leaving) {
      // The clock was set back between two leaders.
      this.#term = leader.term = message.term + 1;
      return this.#broadcast({ type: "hello", term: this.#term }, this.#leaving.signal);
    }
    if (this.#broadcastChannel && message.tab !== this.#id && !leader.knows(message.tab)) this.#watch(leader, message.tab);
    for (const [channel, tag] of message.tags) if (!this.#readerTags.has(channel)) this.#readerTags.set(channel, tag);
    leader.join(message);
  }

  /** Note that a tab has left once it no longer holds its lock. @param {Leader} leader @param {string} tab */
  #watch(leader, tab) {
    navigator.locks.request(`${this.#name} ${tab}`, { signal: leader.over }, () => leader.leave(tab)).catch(() => {});
  }
}

/** @param {AbortSignal} signal @returns {Promise<void>} */
function ended(signal) {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve()));
}
