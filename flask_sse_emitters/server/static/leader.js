/**
 * What the tab that leads does for all tabs: it has one stream of the channels that any of them wants.
 *
 * A channel on which nobody has been has no id yet, and the server takes ids for all channels of a stream or for none.
 * So new ones are opened alone for a moment, which says where they begin, and then with the others from where those
 * are. One that is refused is found on the way, and disturbs nobody.
 *
 * @module
 */

import { ahead, ID, lower, pause, pump, Refused, StreamDecoder, UNKNOWN } from "./stream.js";

/** @typedef {import("./messages.js").Join} Join */
/** @typedef {import("./messages.js").OfLeader} OfLeader */
/** @typedef {import("./messages.js").Told} Told */
/** @typedef {import("./stream.js").Block} Block */

/** Milliseconds in which tabs that all say something at once are waited for. */
const SETTLE = 50;

/** Milliseconds for which a channel that nobody wants stays on the stream: mostly the next page wants it again. */
const LINGER = 5_000;

/** On one stream, as the server has it. */
const MOST_CHANNELS = 50;

/** Characters in which a stream asks for its channels: servers take no lines of any length, gunicorn none of 4095. */
const LONGEST_QUERY = 3_500;

export class Leader {
  #ending = new AbortController();
  /** By tab. @type {Map<string, Set<string>>} */
  #wanted = new Map();
  /** Where the stream is in each channel, or is to begin. @type {Map<string, string>} */
  #cursors = new Map();
  /** How far the server has been: there begins who is new, whatever others are told. @type {Map<string, string>} */
  #heads = new Map();
  /** How far somebody is to begin, which may be further than there is anything. @type {Map<string, string>} */
  #claims = new Map();
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
  #isChecking = false;
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
  join({ tab, channels, since, claims }) {
    this.#wanted.set(tab, new Set(channels));
    for (const [channel, id] of since) if (id !== UNKNOWN) raise(this.#heads, channel, id);
    for (const [channel, id] of claims) raise(this.#claims, channel, id);
    for (const [channel, id] of [...since, ...claims]) {
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
    this.#limit();
    const had = this.#stream?.channels ?? [];
    const wanted = this.#every();
    this.#forget((channel) => wanted.includes(channel) || had.includes(channel));
    const known = wanted.filter((channel) => this.#cursors.has(channel));
    const fresh = this.#fresh();
    if (known.length && fresh.length) this.#admitFresh();
    this.#check();
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

  /** Refuse what one stream cannot ask for: who is there already stays. */
  #limit() {
    let [count, length] = [0, 0];
    const fresh = this.#fresh();
    for (const channel of [...this.#every().filter((channel) => !fresh.includes(channel)), ...fresh]) {
      const more = `&${new URLSearchParams({ channel })}`.length;
      if (count === MOST_CHANNELS) {
        this.#refuse(channel, new Refused(400, `one browser reads ${MOST_CHANNELS} channels at most`));
      } else if (length + more > LONGEST_QUERY) {
        this.#refuse(channel, new Refused(414, `one browser asks in ${LONGEST_QUERY} characters for its channels`));
      } else [count, length] = [count + 1, length + more];
    }
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
      await pause(this.#retry, failures, signal);
    }
  }

  /** Learn where channels begin on which nobody has been, while the stream of the others goes on. */
  async #admitFresh() {
    if (this.#isAdmitting) return;
    this.#isAdmitting = true;
    const signal = this.over;
    for (let failures = 0, fresh; !signal.aborted && (fresh = this.#fresh()).length; ) {
      await this.#glance(fresh, signal).catch(() => pause(this.#retry, ++failures, signal));
    }
    this.#isAdmitting = false;
    this.#settle();
  }

  /** Ask about claims beyond what the stream has been asked for, and so has not been told to be wrong. */
  async #check() {
    if (this.#isChecking) return;
    this.#isChecking = true;
    const signal = this.over;
    for (let failures = 0, channel; !signal.aborted && (channel = this.#doubtful()); ) {
      await this.#examine(channel, signal).catch(() => pause(this.#retry, ++failures, signal));
    }
    this.#isChecking = false;
  }

  #doubtful() {
    for (const [channel, claim] of this.#claims) {
      const known = this.#heads.get(channel) ?? this.#cursors.get(channel) ?? claim;
      if (ahead(claim, known) > 0) return channel;
    }
  }

  /**
   * Learn how far a channel is: a gap says so, and whoever is nowhere gets one.
   *
   * @param {string} channel
   * @param {AbortSignal} signal
   */
  async #examine(channel, signal) {
    const gap = await this.#gap(channel, signal).catch((error) => {
      if (!(error instanceof Refused)) throw error;
      this.#refuse(channel, error);
    });
    const claim = this.#claims.get(channel);
    if (!gap || !claim || signal.aborted) return;
    this.#claims.delete(channel);
    raise(this.#heads, channel, gap.newest[0][1]);
    const head = this.#heads.get(channel) ?? claim; // the stream may have brought more since
    if (!(ahead(claim, head) > 0)) return;
    this.#flush();
    this.#tell({ type: "gap", term: this.term, at: gap.at, newest: [[channel, head]] });
    lower(this.#cursors, channel, gap.at[0][1]);
    this.#cut();
    this.#settle();
  }

  /** @param {string} channel @param {AbortSignal} signal */
  async #gap(channel, signal) {
    const decoder = new StreamDecoder();
    /** @type {ReturnType<typeof readGap>} */
    let gap = null;
    await pump(await this.#open([channel], UNKNOWN, signal), this.#silence, (bytes) => {
      const block = decoder.feed(bytes).find(({ name, id }) => name === "gap" && id === undefined);
      if (block) gap = readGap(block.data ?? "", [channel]);
      return !block;
    });
    if (!gap) throw new Error("sent away, to come again");
    return /** @type {NonNullable<ReturnType<typeof readGap>>} */ (gap);
  }

  /**
   * Open a stream for a moment only; what is refused is given up.
   *
   * @param {string[]} channels
   * @param {AbortSignal} signal
   * @returns whether nothing was.
   */
  async #glance(channels, signal) {
    try {
      await this.#read(channels, signal, true);
      return true;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      await this.#sift(channels, error, signal);
      return false;
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
    const isFirstFine = await this.#glance(channels.slice(0, half), signal);
    const isSecondFine = await this.#glance(channels.slice(half), signal);
    if (!isFirstFine || !isSecondFine || signal.aborted) return;
    try {
      await this.#read(channels, signal, true); // as a token may have been renewed meanwhile
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#refuse(channels[channels.length - 1], error); // each is fine, and so many are not: in too long a line, say
    }
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
      raise(this.#heads, channel, id);
    }
    return moved.length > 0;
  }

  /** @param {[string, string][]} ids */
  #place(ids) {
    for (const [channel, id] of ids) {
      this.#cursors.set(channel, id);
      raise(this.#heads, channel, id);
    }
    this.#say();
    return true;
  }

  /** Some events are gone: tell where those begin that are not. @param {string} [data] @param {string[]} [channels] */
  #skip(data = "", channels = []) {
    const gap = readGap(data, channels);
    if (!gap || !this.#cursors.has(channels[0])) return false; // who has just come is told of no gap
    this.#flush();
    // A process that lags behind the others makes sure of the newest only where it is asked for what it does not know.
    const newest = gap.newest.filter(([channel, id]) => !(ahead(this.#cursors.get(channel) ?? id, id) <= 0));
    for (const [channel, id] of newest) {
      this.#heads.set(channel, id);
      this.#claims.delete(channel);
    }
    for (const [channel, id] of gap.at) {
      this.#cursors.set(channel, id);
      raise(this.#heads, channel, id);
    }
    this.#tell({ type: "gap", term: this.term, at: gap.at, newest });
    return true;
  }

  /** @param {(channel: string) => boolean} isKept */
  #forget(isKept) {
    for (const ids of [this.#cursors, this.#heads, this.#claims]) {
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
    const cursors = [...this.#cursors];
    const heads = [...new Map([...cursors.filter(([, id]) => id !== UNKNOWN), ...this.#heads])];
    this.#tell({ type: "at", term: this.term, to, heads, cursors, live: this.#live });
  }
}

/** @param {string} id @param {string[]} channels @returns {[channel: string, id: string][] | null} */
function split(id, channels) {
  const ids = id.split(",");
  if (ids.length !== channels.length || !ids.every((part) => ID.test(part))) return null;
  return ids.map((part, index) => [channels[index], part]);
}

/** Note that somebody has been here: the farthest remains. @type {typeof lower} */
function raise(ids, channel, id) {
  const known = ids.get(channel);
  if (known === undefined || !(ahead(known, id) >= 0)) ids.set(channel, id);
}

/**
 * The ids after which there is everything, and the newest, if it is a gap.
 *
 * @param {string} data
 * @param {string[]} channels
 */
function readGap(data, channels) {
  try {
    const { oldest, newest } = JSON.parse(data);
    const start = String(oldest).replace(/[0-9]+(?=,|$)/g, (offset) => String(Number(offset) - 1));
    const [at, end] = [split(start, channels), split(String(newest), channels)];
    return at && end && { at, newest: end };
  } catch {
    return null;
  }
}
