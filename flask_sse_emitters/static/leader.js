/**
 * What the tab that leads does for all tabs: it has one stream of the channels that any of them wants.
 *
 * A channel on which nobody has been has no id yet, and the server takes ids for all channels of a stream or for none.
 * So new ones are opened alone for a moment, which says where they begin, and then with the others from where those
 * are. One that is refused is found on the way, and disturbs nobody.
 *
 * @module
 */

import { ahead, ID, lower, pump, Refused, StreamDecoder, UNKNOWN } from "./stream.js";

/** @typedef {import("./sse-emitters.js").Join} Join */
/** @typedef {import("./sse-emitters.js").OfLeader} OfLeader */
/** @typedef {import("./sse-emitters.js").Told} Told */
/** @typedef {import("./stream.js").Block} Block */

/** Milliseconds in which tabs that all say something at once are waited for. */
const SETTLE = 50;

/** Milliseconds for which a channel that nobody wants stays on the stream: mostly the next page wants it again. */
const LINGER = 5_000;

/** Milliseconds: so much is added at most to the server's `retry`, by chance. */
const MOST_JITTER = 30_000;

/** On one stream, as the server has it. */
const MOST_CHANNELS = 50;

export class Leader {
  #ending = new AbortController();
  /** By tab. @type {Map<string, Set<string>>} */
  #wanted = new Map();
  /** Where the stream is in each channel, or is to begin. @type {Map<string, string>} */
  #cursors = new Map();
  /** How far anybody has been: there begins who is new, whatever others are told. @type {Map<string, string>} */
  #heads = new Map();
  /** @type {{ channels: string[], cut: AbortController } | null} */
  #stream = null;
  /** @type {Told[]} */
  #outbox = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #settling;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #lingering;
  /** What the stream brings now. @type {string[]} */
  #live = [];
  #isAdmitting = false;
  #retry = 3_000;
  #open;
  #silence;
  #tell;

  /**
   * @param {number} term of its messages.
   * @param {import("./stream.js").Open} open
   * @param {number} silence see {@link pump}.
   * @param {(message: OfLeader) => void} tell says it to all tabs, this one as well, and calls nothing at once.
   */
  constructor(term, open, silence, tell) {
    this.term = term;
    this.#open = open;
    this.#silence = silence;
    this.#tell = tell;
  }

  /** Is aborted once it no longer leads. */
  get over() {
    return this.#ending.signal;
  }

  /** @param {string} tab */
  knows(tab) {
    return this.#wanted.has(tab);
  }

  /**
   * A tab says what it wants, and where it is, as far as the leader is to know.
   *
   * @param {Join} join
   */
  join({ tab, channels, since }) {
    this.#wanted.set(tab, new Set(channels));
    for (const [channel, id] of since) {
      if (id !== UNKNOWN && !(ahead(id, this.#heads.get(channel) ?? id) < 0)) this.#heads.set(channel, id);
      const cursor = this.#cursors.get(channel);
      lower(this.#cursors, channel, id);
      if (cursor && cursor !== this.#cursors.get(channel)) this.#cut(); // what it brought now would be taken for later
    }
    this.#say(tab);
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
    if (!this.over.aborted) this.#settling = setTimeout(() => this.#arrange(true), SETTLE);
  }

  /** Have the stream that is needed now. @param {boolean} mayLinger on one that has more. */
  #arrange(mayLinger) {
    clearTimeout(this.#lingering);
    const had = this.#stream?.channels ?? [];
    const wanted = this.#every();
    this.#forget((channel) => wanted.includes(channel) || had.includes(channel));
    const known = wanted.filter((channel) => this.#cursors.has(channel));
    const fresh = this.#fresh();
    for (const channel of fresh.splice(Math.max(0, MOST_CHANNELS - known.length))) {
      this.#refuse(channel, new Refused(400, `one browser reads ${MOST_CHANNELS} channels at most`));
    }
    if (known.length && fresh.length) this.#admitFresh();
    const needed = known.length ? known : fresh;
    if (this.#stream && needed.every((channel) => had.includes(channel))) {
      if (needed.length === had.length) return;
      if (mayLinger) {
        this.#lingering = setTimeout(() => this.#arrange(false), LINGER);
        return;
      }
    }
    this.#cut();
    this.#forget((channel) => wanted.includes(channel));
    if (!needed.length) return;
    this.#stream = { channels: needed, cut: new AbortController() };
    this.#follow(needed, this.#stream.cut.signal);
  }

  /** Read a stream, again and again, until it is cut. @param {string[]} channels @param {AbortSignal} signal */
  async #follow(channels, signal) {
    for (let failures = 0; !signal.aborted; ) {
      const began = performance.now();
      try {
        const isMoved = await this.#read(channels, signal);
        failures = isMoved || performance.now() - began > this.#retry ? 0 : failures + 1;
      } catch (error) {
        failures += 1;
        if (error instanceof Refused) await this.#sift(channels, error, signal).catch(() => {}); // it is asked again
      }
      if (signal.aborted) return;
      this.#live = [];
      this.#say();
      await this.#pause(failures, signal);
    }
  }

  /** Learn where channels begin on which nobody has been, while the stream of the others goes on. */
  async #admitFresh() {
    if (this.#isAdmitting) return;
    this.#isAdmitting = true;
    const signal = this.over;
    for (let failures = 0, fresh; !signal.aborted && (fresh = this.#fresh()).length; ) {
      await this.#glance(fresh, signal).catch(() => this.#pause(++failures, signal));
    }
    this.#isAdmitting = false;
    this.#settle();
  }

  /**
   * Open a stream for a moment only; what is refused is given up.
   *
   * @param {string[]} channels
   * @param {AbortSignal} signal
   */
  async #glance(channels, signal) {
    try {
      await this.#read(channels, signal, true);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      await this.#sift(channels, error, signal);
    }
  }

  /**
   * Find out which of them the server means.
   *
   * @param {string[]} channels
   * @param {Refused} refused
   * @param {AbortSignal} signal
   */
  async #sift(channels, refused, signal) {
    if (signal.aborted) return;
    if (channels.length === 1) return this.#refuse(channels[0], refused);
    const half = channels.length >> 1;
    await this.#glance(channels.slice(0, half), signal);
    await this.#glance(channels.slice(half), signal);
  }

  /** @param {string} channel @param {Refused} refused */
  #refuse(channel, { status, message }) {
    for (const channels of this.#wanted.values()) channels.delete(channel);
    if (this.#stream?.channels.includes(channel)) this.#cut();
    this.#forget((other) => other !== channel);
    this.#tell({ type: "refused", term: this.term, channel, status, message });
    this.#say();
    this.#settle();
  }

  /**
   * Read a stream to its end, or to where it begins.
   *
   * @param {string[]} channels of which all have a cursor, or none.
   * @param {AbortSignal} signal
   * @param {boolean} [isGlance]
   * @returns whether it brought anything.
   */
  async #read(channels, signal, isGlance = false) {
    const ids = channels.flatMap((channel) => this.#cursors.get(channel) ?? []);
    const body = await this.#open(channels, ids.join(), signal);
    const decoder = new StreamDecoder();
    let isMoved = false;
    await pump(body, this.#silence, (bytes) => {
      if (signal.aborted || (isGlance && ids.length)) return false;
      try {
        for (const block of decoder.feed(bytes)) {
          if (!isGlance) this.#greet(block, channels);
          isMoved = this.#take(block, channels) || isMoved;
          if (isGlance && isMoved) return false;
        }
      } finally {
        this.#flush();
      }
      return true;
    });
    if (isGlance && !ids.length && !isMoved) throw new Error("sent away, to come again");
    return isMoved;
  }

  /** Whoever is sent away, to come again, gets no greeting. @param {Block} block @param {string[]} channels */
  #greet({ comment, id }, channels) {
    if (this.#live === channels || (comment ?? id) === undefined) return;
    this.#live = channels;
    this.#say();
  }

  /** @param {Block} block @param {string[]} channels @returns whether it brought the stream forward. */
  #take({ name, data, id, retry }, channels) {
    if (retry !== undefined) this.#retry = retry;
    if (id === undefined) return name === "gap" && this.#skip(data, channels); // else it was sent by hand
    const ids = split(id, channels);
    if (!ids) throw new Refused(200, `the stream of ${channels} has other ids: ${id}`);
    if (data === undefined) return this.#place(ids);
    const moved = ids.filter(([channel, id]) => this.#cursors.get(channel) !== id);
    if (moved.length > 1) throw new Error("events were dropped on the way: which channel this is of cannot be told");
    for (const [channel, id] of moved) {
      this.#outbox.push({ channel, id, after: this.#cursors.get(channel) ?? id, name, data });
      this.#cursors.set(channel, id);
      this.#raise(channel, id);
    }
    return moved.length > 0;
  }

  /** @param {[string, string][]} ids */
  #place(ids) {
    for (const [channel, id] of ids) {
      this.#cursors.set(channel, id);
      this.#raise(channel, id);
    }
    this.#say();
    return true;
  }

  /** Some events are gone: tell where those begin that are not. @param {string} [data] @param {string[]} [channels] */
  #skip(data = "", channels = []) {
    const at = split(oldest(data), channels);
    if (!at || !this.#cursors.has(channels[0])) return false; // who has just come is told of no gap
    this.#flush();
    for (const [channel, id] of at) {
      this.#cursors.set(channel, id);
      this.#raise(channel, id);
    }
    this.#tell({ type: "gap", term: this.term, at });
    return true;
  }

  /** @param {string} channel @param {string} id */
  #raise(channel, id) {
    const head = this.#heads.get(channel);
    if (head === undefined || !(ahead(head, id) >= 0)) this.#heads.set(channel, id);
  }

  /** @param {(channel: string) => boolean} isKept */
  #forget(isKept) {
    for (const ids of [this.#cursors, this.#heads]) {
      for (const channel of [...ids.keys()]) if (!isKept(channel)) ids.delete(channel);
    }
  }

  #every() {
    return [...new Set([...this.#wanted.values()].flatMap((channels) => [...channels]))];
  }

  #fresh() {
    return this.#every().filter((channel) => !this.#cursors.has(channel));
  }

  #cut() {
    this.#stream?.cut.abort();
    this.#stream = null;
  }

  #flush() {
    const events = this.#outbox.splice(0);
    if (events.length) this.#tell({ type: "events", term: this.term, events });
  }

  /** Say where everything is. @param {string} [to] */
  #say(to) {
    const [heads, cursors] = [[...this.#heads], [...this.#cursors]];
    this.#tell({ type: "at", term: this.term, to, heads, cursors, live: this.#live });
  }

  /** Wait as long as the server says, and by chance up to as long again, twice that after a failure, and so on. */
  #pause(/** @type {number} */ failures, /** @type {AbortSignal} */ signal) {
    const jitter = Math.random() * Math.min(MOST_JITTER, Math.max(this.#retry, 100) * 2 ** failures);
    return new Promise((resolve) => {
      const waiting = new AbortController();
      const end = () => {
        clearTimeout(timer);
        waiting.abort();
        resolve(undefined);
      };
      const timer = setTimeout(end, this.#retry + jitter);
      signal.addEventListener("abort", end, { signal: waiting.signal });
      globalThis.addEventListener("online", end, { signal: waiting.signal });
    });
  }
}

/** @param {string} id @param {string[]} channels @returns {[channel: string, id: string][] | null} */
function split(id, channels) {
  const ids = id.split(",");
  if (ids.length !== channels.length || !ids.every((part) => ID.test(part))) return null;
  return ids.map((part, index) => [channels[index], part]);
}

/** The ids after which there is everything, if it is a gap. @param {string} data */
function oldest(data) {
  try {
    return String(JSON.parse(data).oldest).replace(/[0-9]+(?=,|$)/g, (offset) => String(Number(offset) - 1));
  } catch {
    return "";
  }
}
