/**
 * The leader: the tab that has one stream of all channels that any tab wants.
 *
 * The server accepts ids for all channels of a stream or for none, and a channel that no tab has read has no id yet. So
 * new channels are first opened on their own for a moment, to learn their positions, and then together with the others.
 * A refused channel is found on the way, and does not disturb the others.
 *
 * @module
 */

import { Positions, readGap, splitId } from "./positions.js";
import { END, Ended, fetchGap, findExcess, pause, pump, Refused, StreamDecoder } from "./stream.js";

/** @typedef {import("./messages.js").Join} Join */
/** @typedef {import("./messages.js").LeaderMessage} LeaderMessage */
/** @typedef {import("./messages.js").EventMessage} EventMessage */
/** @typedef {import("./stream.js").Block} Block */

/** The stream is changed so long after the last message, since several tabs may send theirs at once. */
const SETTLE_MS = 50;

/** A channel that no tab wants stays on the stream for so long: often the next page wants it again. */
const LINGER_MS = 5_000;

export class Leader {
  #ending = new AbortController();
  /** Channels by tab. @type {Map<string, Set<string>>} */
  #wanted = new Map();
  #positions = new Positions();
  /** @type {{ channels: string[], cut: AbortController } | null} */
  #stream = null;
  /** @type {EventMessage[]} */
  #outbox = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #settling;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #lingering;
  /** Channels of the open stream. @type {string[]} */
  #live = [];
  #isLocating = false;
  #isCheckingClaims = false;
  #retry = 3_000;
  #open;
  #silence;
  #broadcast;

  /**
   * @param {number} term of its messages.
   * @param {import("./stream.js").Open} open
   * @param {number} silence see {@link pump}.
   * @param {(message: LeaderMessage) => void} broadcast sends to all tabs, this one included, and calls nothing at once.
   */
  constructor(term, open, silence, broadcast) {
    this.term = term;
    this.#open = open;
    this.#silence = silence;
    this.#broadcast = broadcast;
  }

  /** A signal that is aborted once this tab no longer leads. */
  get over() {
    return this.#ending.signal;
  }

  /** @param {string} tab */
  knows(tab) {
    return this.#wanted.has(tab);
  }

  /**
   * Note the channels that a tab wants, and the positions of its lagging subscriptions.
   *
   * @param {Join} join
   */
  join({ tab, channels, since, claims }) {
    this.#wanted.set(tab, new Set(channels));
    if (this.#positions.include(since, claims)) this.#cut(); // else events would seem to come later
    this.#announce(tab);
    this.#settle();
  }

  /** @param {string} tab */
  leave(tab) {
    if (this.#wanted.delete(tab)) this.#settle();
  }

  stop() {
    this.#ending.abort();
    this.#cut();
    clearTimeout(this.#settling);
    clearTimeout(this.#lingering);
  }

  #settle() {
    clearTimeout(this.#settling);
    if (!this.over.aborted) this.#settling = setTimeout(() => this.#updateStream(true), SETTLE_MS);
  }

  /** Open the stream that is needed now. @param {boolean} mayLinger keep one that has more channels for a while. */
  #updateStream(mayLinger) {
    clearTimeout(this.#lingering);
    this.#limit();
    const had = this.#stream?.channels ?? [];
    const wanted = this.#wantedChannels();
    this.#positions.forget((channel) => wanted.includes(channel) || had.includes(channel));
    const known = wanted.filter((channel) => this.#positions.has(channel));
    const fresh = this.#newChannels();
    if (known.length && fresh.length) this.#locateNewChannels();
    this.#checkClaims();
    const needed = known.length ? known : fresh;
    if (this.#stream && needed.every((channel) => had.includes(channel))) {
      if (needed.length === had.length) return;
      if (mayLinger) {
        this.#lingering = setTimeout(() => this.#updateStream(false), LINGER_MS);
        return;
      }
    }
    this.#cut();
    this.#positions.forget((channel) => wanted.includes(channel));
    if (!needed.length) return;
    this.#stream = { channels: needed, cut: new AbortController() };
    this.#follow(needed, this.#stream.cut.signal);
  }

  /** Refuse new channels that do not fit into one stream. */
  #limit() {
    const fresh = this.#newChannels();
    const old = this.#wantedChannels().filter((channel) => !fresh.includes(channel));
    for (const [channel, refused] of findExcess([...old, ...fresh])) this.#refuse(channel, refused);
  }

  /** Read streams one after the other, until cut. @param {string[]} channels @param {AbortSignal} signal */
  async #follow(channels, signal) {
    for (let failures = 0; !signal.aborted; ) {
      const began = performance.now();
      try {
        const hasEvents = await this.#read(channels, signal);
        failures = hasEvents || performance.now() - began > this.#retry ? 0 : failures + 1;
      } catch (error) {
        failures += 1;
        if (error instanceof Ended) this.#end(channels, signal);
        if (error instanceof Refused) await this.#findRefused(channels, error, signal).catch(() => {}); // it is asked again
      }
      if (signal.aborted) return;
      this.#live = [];
      this.#announce();
      await pause(this.#retry, failures, signal);
    }
  }

  /** Learn the positions of new channels, while the stream of the others continues. */
  async #locateNewChannels() {
    if (this.#isLocating) return;
    this.#isLocating = true;
    const signal = this.over;
    for (let failures = 0, fresh; !signal.aborted && (fresh = this.#newChannels()).length; ) {
      await this.#openBriefly(fresh, signal).catch(() => pause(this.#retry, ++failures, signal));
    }
    this.#isLocating = false;
    this.#settle();
  }

  /** Check claims beyond the stream's position: the stream itself reports no gap for them. */
  async #checkClaims() {
    if (this.#isCheckingClaims) return;
    this.#isCheckingClaims = true;
    const signal = this.over;
    for (let failures = 0, channel; !signal.aborted && (channel = this.#positions.findDoubtfulClaim()); ) {
      await this.#checkClaim(channel, signal).catch(() => pause(this.#retry, ++failures, signal));
    }
    this.#isCheckingClaims = false;
  }

  /**
   * Learn the newest position of a channel from a gap, which a request with an unknown id gets.
   *
   * @param {string} channel
   * @param {AbortSignal} signal
   */
  async #checkClaim(channel, signal) {
    const gap = await fetchGap(channel, this.#open, signal, this.#silence).catch((error) => {
      if (error instanceof Ended) return this.#end([channel], signal);
      if (!(error instanceof Refused)) throw error;
      this.#refuse(channel, error);
    });
    if (!gap || signal.aborted) return;
    const head = this.#positions.settleClaim(channel, gap);
    if (!head) return;
    this.#flush();
    this.#broadcast({ type: "gap", term: this.term, at: gap.at, newest: [[channel, head]] });
    this.#cut();
    this.#settle();
  }

  /** Open a stream only for a moment. @param {string[]} channels @param {AbortSignal} signal @returns whether none was dropped. */
  async #openBriefly(channels, signal) {
    try {
      await this.#read(channels, signal, true);
      return true;
    } catch (error) {
      if (error instanceof Ended) this.#end(channels, signal);
      else if (error instanceof Refused) await this.#findRefused(channels, error, signal);
      else throw error;
      return false;
    }
  }

  /**
   * Find out which of these channels the server refuses.
   *
   * @param {string[]} channels
   * @param {Refused} refused
   * @param {AbortSignal} signal
   */
  async #findRefused(channels, refused, signal) {
    if (signal.aborted) return;
    if (channels.length === 1) return this.#refuse(channels[0], refused);
    const half = channels.length >> 1;
    const isFirstFine = await this.#openBriefly(channels.slice(0, half), signal);
    const isSecondFine = await this.#openBriefly(channels.slice(half), signal);
    if (!isFirstFine || !isSecondFine || signal.aborted) return;
    try {
      await this.#read(channels, signal, true); // a token may have been renewed meanwhile
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#refuse(channels[channels.length - 1], error); // accepted one by one, but not together
    }
  }

  /** @param {string} channel @param {Refused} refused */
  #refuse(channel, { status, message }) {
    this.#drop([channel], { type: "refused", term: this.term, channel, status, message });
  }

  /** Channels have ended: subscriptions that lack events ask for them. @param {string[]} channels @param {AbortSignal} signal */
  #end(channels, signal) {
    if (!signal.aborted) this.#drop(channels, { type: "ended", term: this.term, at: this.#positions.ends(channels) });
  }

  /** Continue without some channels, and tell all tabs why. @param {string[]} dropped @param {LeaderMessage} message */
  #drop(dropped, message) {
    for (const channels of this.#wanted.values()) for (const channel of dropped) channels.delete(channel);
    const isKept = (/** @type {string} */ channel) => !dropped.includes(channel);
    if (this.#stream && !this.#stream.channels.every(isKept)) this.#cut();
    this.#live = this.#live.every(isKept) ? this.#live : this.#live.filter(isKept);
    this.#positions.forget(isKept);
    this.#broadcast(message);
    this.#announce();
    this.#settle();
  }

  /**
   * Read a stream to its end; a brief one only to its position.
   *
   * @param {string[]} channels all of them with a cursor, or none.
   * @param {AbortSignal} signal
   * @param {boolean} [isBrief]
   * @returns whether it brought anything.
   */
  async #read(channels, signal, isBrief = false) {
    const ids = this.#positions.of(channels);
    const body = await this.#open(channels, ids.join(), signal);
    const decoder = new StreamDecoder();
    let hasEvents = false;
    await pump(body, this.#silence, (bytes) => {
      if (signal.aborted || (isBrief && ids.length)) return false;
      try {
        for (const block of decoder.feed(bytes)) {
          if (!isBrief) this.#noteOpened(block, channels);
          hasEvents = this.#take(block, channels) || hasEvents;
          if (isBrief && hasEvents) return false;
        }
      } finally {
        this.#flush();
      }
      return true;
    });
    if (isBrief && !ids.length && !hasEvents) throw new Error("the server asks to come back later");
    return hasEvents;
  }

  /**
   * Note that the stream is open: it begins with a comment or an id, unless the server asks to come back later.
   *
   * @param {Block} block
   * @param {string[]} channels
   */
  #noteOpened({ comment, id }, channels) {
    if (this.#live === channels || (comment ?? id) === undefined) return;
    this.#live = channels;
    this.#announce();
  }

  /** @param {Block} block @param {string[]} channels @returns whether the stream advanced. */
  #take({ name, data, id, retry }, channels) {
    if (retry !== undefined) this.#retry = retry;
    if (id === END) throw new Ended();
    if (id === undefined) return name === "gap" && this.#relayGap(data, channels); // else it was not published
    const ids = splitId(id, channels);
    if (!ids) throw new Refused(200, `the stream of ${channels} has other ids: ${id}`);
    if (data === undefined) {
      this.#positions.advance(ids);
      this.#announce();
      return true;
    }
    const step = this.#positions.advanceToEvent(ids);
    if (step) this.#outbox.push({ ...step, name, data });
    return !!step;
  }

  /**
   * Send all tabs a gap: events are gone, and those that are kept begin later.
   *
   * @param {string} [data]
   * @param {string[]} [channels]
   */
  #relayGap(data = "", channels = []) {
    const gap = readGap(data, channels);
    if (!gap || !this.#positions.has(channels[0])) return false; // a new channel can have no gap
    this.#flush();
    this.#broadcast({ type: "gap", term: this.term, at: gap.at, newest: this.#positions.skip(gap) });
    return true;
  }

  #wantedChannels() {
    return [...new Set([...this.#wanted.values()].flatMap((channels) => [...channels]))];
  }

  #newChannels() {
    return this.#wantedChannels().filter((channel) => !this.#positions.has(channel));
  }

  #cut() {
    this.#stream?.cut.abort();
    this.#stream = null;
  }

  #flush() {
    const events = this.#outbox.splice(0);
    if (events.length) this.#broadcast({ type: "events", term: this.term, events });
  }

  /** Send the positions of all channels. @param {string} [to] */
  #announce(to) {
    this.#broadcast({ type: "at", term: this.term, to, ...this.#positions.all, live: this.#live });
  }
}
