/**
 * Channels in the browser, over one connection for all tabs.
 *
 * Of the tabs that read from one address, one leads: the one that holds a Web Lock. It has a single stream of all
 * channels that any of them wants, and tells what comes through a BroadcastChannel. Where it goes, however suddenly,
 * the lock passes on. Nothing is lost then, because each reader knows how far it is in each channel (an id is
 * `<epoch>-<offset>`, and those of a stream of several channels are joined with commas): the leader begins where the
 * one is who is farthest back, and everybody drops what they have had. Each message of a leader bears its term, and
 * each event the id of the one before it, so that what comes too late is known, and what was lost is asked for again.
 *
 * Without Web Locks, as in an insecure context, each page has a connection of its own, and all else is the same.
 *
 * @module
 */

import { Leader } from "./leader.js";
import { ahead, ID, lower, opener, reaches, UNKNOWN } from "./stream.js";

/** @typedef {"connecting" | "open" | "closed"} State */
/** @typedef {{ channels: string[] }} Gap */
/** @typedef {{ channel: string, status: number, message: string }} Refusal */

/**
 * @typedef {object} Options
 * @property {(event: ChannelEvent) => void} [onEvent] gets every event, whatever its name.
 * @property {(gap: Gap) => void} [onGap] something of these channels was missed and is gone: fetch their state anew.
 * @property {(refusal: Refusal) => void} [onError] the server refuses a channel, with 401, 403 or 404, say. It is given
 *   up, and the others go on. A server that is away is no error: the state is "connecting".
 * @property {(state: State) => void} [onState] "open": whatever is published from now on comes.
 * @property {Record<string, string>} [since] by channel, the id after which to begin; else with what comes next.
 * @property {boolean} [withCredentials] send cookies to another origin, too.
 * @property {HeadersInit | (() => HeadersInit | Promise<HeadersInit>)} [headers] sent with this tab's requests.
 * @property {string | false} [share] tabs that say the same here share a connection; with false this one has its own.
 * @property {number} [silence] seconds without a byte after which the connection counts as dead, more than
 *   SSE_HEARTBEAT; 0 is never. 45 if left out.
 */

/** @typedef {(event: ChannelEvent) => void} Handler */
/** @typedef {{ channel: string, id: string, after: string, name: string, data: string }} Told an event under way. */
/** @typedef {[channel: string, id: string][]} Ids */
/** @typedef {{ type: "join", tab: string, term: number, channels: string[], since: Ids, claims: Ids }} Join */
/** @typedef {{ type: "leave", tab: string }} Leave */
/** @typedef {{ type: "hello", term: number }} Hello */
/** @typedef {{ type: "at", term: number, to?: string, heads: Ids, cursors: Ids, live: string[] }} At */
/** @typedef {{ type: "events", term: number, events: Told[] }} Events */
/** @typedef {{ type: "gap", term: number, at: Ids, newest: Ids }} Skip */
/** @typedef {{ type: "refused", term: number } & Refusal} GivenUp */
/** @typedef {Hello | At | Events | Skip | GivenUp} OfLeader */

/** Milliseconds: a leader that does not answer for so long hangs, and is deposed. */
const PATIENCE = 10_000;

/** @param {unknown} value */
const isText = (value) => typeof value === "string";
/** @param {unknown} value */
const isTexts = (value) => Array.isArray(value) && value.every(isText);
/** @param {unknown} value */
const isIds = (value) => Array.isArray(value) && value.every((pair) => isTexts(pair) && ID.test(pair[1]));
/** @param {unknown} value */
const isEvents = (value) => Array.isArray(value) && value.every((each) => fits(each, TOLD));
/** @type {Record<string, (value: any) => boolean>} */
const TOLD = { channel: isText, id: (id) => ID.test(id), after: (id) => ID.test(id), name: isText, data: isText };

/** What tabs say to each other. @type {Record<string, typeof TOLD>} */
const MESSAGES = {
  join: { tab: isText, term: Number.isFinite, channels: isTexts, since: isIds, claims: isIds },
  leave: { tab: isText },
  hello: { term: Number.isFinite },
  at: { term: Number.isFinite, heads: isIds, cursors: isIds, live: isTexts },
  events: { term: Number.isFinite, events: isEvents },
  gap: { term: Number.isFinite, at: isIds, newest: isIds },
  refused: { term: Number.isFinite, channel: isText, status: Number.isFinite, message: isText },
};

/** Whether it has what it must. @param {any} value @param {typeof TOLD} shape */
function fits(value, shape) {
  return !!value && Object.entries(shape).every(([name, check]) => check(value[name]));
}

/**
 * Whether it is one of them: any script of this origin can say something.
 *
 * @param {any} data
 * @returns {data is Join | Leave | OfLeader}
 */
function isMessage(data) {
  return Object.hasOwn(MESSAGES, data?.type) && fits(data, MESSAGES[data.type]);
}

/**
 * Call somebody's function: what it throws is reported, and stops nobody else.
 *
 * @template T
 * @param {((value: T) => void) | undefined} listener
 * @param {T} value
 */
function call(listener, value) {
  try {
    listener?.(value);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** What was published. */
export class ChannelEvent {
  /** @param {Told} told */
  constructor({ channel, name, data, id }) {
    this.channel = channel;
    /** "message" where it was published without a name. */
    this.name = name;
    this.data = data;
    /** The one that publishing it returned. */
    this.id = id;
  }

  /** The data, read as JSON. @returns {any} */
  json() {
    return JSON.parse(this.data);
  }
}

/** One subscription: what it wants, and how far it is. */
class Reader {
  /** @type {State} */
  state = "connecting";
  /** Of the channels that have begun. @type {Map<string, string>} */
  positions = new Map();
  /** Those whose position is what the page says: no event has come since. @type {Set<string>} */
  claims = new Set();
  /** @type {Set<{ name: string, handler: Handler, channel: string | undefined }>} */
  handlers = new Set();

  /** @param {string[]} channels @param {Options} options */
  constructor(channels, options) {
    this.channels = new Set(channels);
    this.options = options;
    for (const [channel, id] of Object.entries(options.since ?? {})) {
      if (!id || !this.channels.has(channel)) continue;
      this.positions.set(channel, ID.test(id) ? id : UNKNOWN);
      if (ID.test(id)) this.claims.add(channel);
    }
  }

  /** @param {State} state */
  enter(state) {
    if (this.state === state || this.state === "closed") return;
    this.state = state;
    call(this.options.onState, state);
  }

  /**
   * Take what the leader tells.
   *
   * @param {OfLeader} message
   * @returns {boolean} false where something before it is missing.
   */
  hear(message) {
    if (message.type === "at") return this.#begin(message);
    if (message.type === "events") return message.events.every((told) => this.#take(told));
    if (message.type === "gap") this.#skip(message);
    if (message.type === "refused") this.#giveUp(message);
    return true;
  }

  /** @param {At} at */
  #begin({ heads, cursors, live }) {
    for (const [channel, id] of heads) {
      if (this.channels.has(channel) && !this.positions.has(channel)) this.positions.set(channel, id);
    }
    const isOpen = [...this.channels].every((channel) => live.includes(channel) && this.positions.has(channel));
    this.enter(isOpen ? "open" : "connecting");
    return cursors.every(([channel, id]) => reaches(this.positions.get(channel) ?? id, id));
  }

  /** @param {Told} told */
  #take(told) {
    const position = this.positions.get(told.channel);
    if (position === undefined) return true;
    if (!reaches(position, told.after)) return false;
    if (ahead(told.id, position) <= 0) return true; // not where the epoch changes: it goes on after a position we have
    this.positions.set(told.channel, told.id);
    this.claims.delete(told.channel);
    const event = new ChannelEvent(told);
    call(this.options.onEvent, event);
    for (const { name, handler, channel = told.channel } of [...this.handlers]) {
      if (name === told.name && channel === told.channel && this.state !== "closed") call(handler, event);
    }
    return true;
  }

  /** @param {Skip} skip */
  #skip({ at, newest }) {
    const channels = [];
    const ends = new Map(newest);
    for (const [channel, id] of at) {
      const position = this.positions.get(channel);
      if (position === undefined) continue;
      const isBeyond = ahead(position, ends.get(channel) ?? position) > 0; // where there is nothing, or no longer
      if (ahead(position, id) >= 0 && !isBeyond) continue;
      this.positions.set(channel, id);
      this.claims.delete(channel);
      channels.push(channel);
    }
    if (channels.length) call(this.options.onGap, { channels });
  }

  /** @param {GivenUp} refusal */
  #giveUp({ channel, status, message }) {
    if (!this.channels.delete(channel)) return;
    this.positions.delete(channel);
    call(this.options.onError, { channel, status, message });
    if (!this.channels.size) this.enter("closed");
  }
}

/** All that this page reads from one address. */
class Hub {
  /** @type {Set<Reader>} */
  #readers = new Set();
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
  #tab = "";
  #term = 0;
  #isKnown = false; // the others can see when this tab dies
  #isJoining = false;
  #name;
  #isShared;
  #open;
  #silence;

  /** @param {string} name @param {boolean} isShared @param {import("./stream.js").Open} open @param {number} silence */
  constructor(name, isShared, open, silence) {
    this.#name = name;
    this.#isShared = isShared;
    this.#open = open;
    this.#silence = silence;
  }

  /** @param {Reader} reader */
  add(reader) {
    if (!this.#readers.size) this.#listen();
    this.#readers.add(reader);
    this.#enter();
    this.#join([reader]);
  }

  /** @param {Reader} reader */
  remove(reader) {
    reader.enter("closed");
    reader.channels.clear();
    reader.positions.clear();
    if (!this.#readers.delete(reader)) return;
    if (this.#readers.size) return this.#join();
    this.#listening?.abort();
    this.#leave();
  }

  #listen() {
    if (typeof document === "undefined") return; // a worker
    const { signal } = (this.#listening = new AbortController());
    addEventListener("pagehide", () => this.#leave(), { signal }); // else browsers would not keep the page for "back"
    addEventListener("pageshow", () => this.#enter(), { signal });
    document.addEventListener("freeze", () => this.#leave(), { signal });
    document.addEventListener("resume", () => this.#enter(), { signal });
    document.addEventListener("visibilitychange", () => document.hidden || this.#join(), { signal });
  }

  #enter() {
    if (this.#leaving || !this.#readers.size) return;
    const { signal } = (this.#leaving = new AbortController());
    this.#tab = crypto.getRandomValues(new Uint32Array(4)).join("-");
    if (!this.#isShared || typeof BroadcastChannel === "undefined") return this.#lead(signal);
    this.#bus = new BroadcastChannel(this.#name);
    this.#bus.onmessage = ({ data }) => this.#hear(data);
    this.#compete(signal);
  }

  #leave() {
    this.#send({ type: "leave", tab: this.#tab });
    this.#leaving?.abort();
    this.#leaving = null;
    this.#isKnown = this.#isJoining = false;
    this.#stand();
    this.#bus?.close();
    this.#bus = null;
    clearTimeout(this.#patience);
    for (const reader of this.#readers) reader.enter("connecting");
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
      this.#bus?.close(); // no locks are to be had here, as in an insecure context: it is on its own
      this.#bus = null;
      return this.#lead(signal);
    }
    if (signal.aborted) return;
    this.#isKnown = true;
    this.#join(this.#readers);
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
    this.#leader = new Leader(this.#term, this.#open, this.#silence, (message) => this.#tell(message, signal));
    this.#tell({ type: "hello", term: this.#term }, signal);
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

  /** Say what this tab wants, and where those are who are not in step. @param {Iterable<Reader>} [readers] */
  #join(readers = []) {
    if (!this.#isKnown || !this.#leaving) return;
    const { signal } = this.#leaving;
    const since = new Map();
    /** @type {Ids} */
    const claims = [];
    for (const reader of readers) {
      for (const [channel, id] of reader.positions) {
        if (reader.claims.has(channel)) claims.push([channel, id]);
        else lower(since, channel, id);
      }
    }
    this.#isJoining = true;
    clearTimeout(this.#patience);
    if (this.#bus) this.#patience = setTimeout(() => this.#request({ steal: true }, signal), PATIENCE);
    const channels = [...new Set([...this.#readers].flatMap((reader) => [...reader.channels]))];
    this.#send({ type: "join", tab: this.#tab, term: this.#term, channels, since: [...since], claims });
  }

  /** What comes from another tab, or from the leader in this one. @param {unknown} message */
  #hear(message) {
    if (!isMessage(message)) return;
    if (message.type === "join" || message.type === "leave") return this.#attend(message);
    if (message.term > this.#term || message.type === "hello") {
      if (message.term > this.#term && this.#leader?.term !== message.term) this.#stand(); // its lock was stolen
      this.#term = Math.max(this.#term, message.term);
      this.#join(this.#readers);
    }
    if (message.term < this.#term) return;
    if (message.type === "at" && message.to === this.#tab) {
      clearTimeout(this.#patience);
      this.#isJoining = false;
    }
    const isInStep = [...this.#readers].map((reader) => reader.hear(message)).every(Boolean);
    for (const reader of this.#readers) if (reader.state === "closed") this.remove(reader);
    if (!isInStep && !this.#isJoining) this.#join(this.#readers);
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
    leader.join(message);
  }

  /** Have a tab count as gone once it no longer holds its lock. @param {Leader} leader @param {string} tab */
  #watch(leader, tab) {
    navigator.locks.request(`${this.#name} ${tab}`, { signal: leader.over }, () => leader.leave(tab)).catch(() => {});
  }
}

/** @param {AbortSignal} signal @returns {Promise<void>} */
function ended(signal) {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve()));
}

/** @type {Map<string, Hub>} */
const hubs = new Map();

/**
 * Read channels; every tab that does so at this address shares one connection.
 *
 * @example
 * const orders = subscribe("/events", ["orders", "news"], { onGap: () => location.reload() });
 * orders.on("created", (event) => add(event.json()), { channel: "orders" });
 *
 * @param {string | URL} url where the blueprint of the channels is.
 * @param {string | string[]} channels names, one or more; "~" is the reader's own.
 * @param {Options} [options]
 */
export function subscribe(url, channels, options = {}) {
  const names = [channels].flat();
  if (!names.length || !names.every(isText)) throw new TypeError("subscribe() takes an address and names of channels");
  const address = new URL(url, typeof document === "undefined" ? globalThis.location?.href : document.baseURI);
  address.hash = "";
  const { withCredentials = false, share = "", silence = 45 } = options;
  const name = JSON.stringify(["sse-emitters", address.href, withCredentials, share]);
  const hub = (share !== false && hubs.get(name)) || new Hub(name, share !== false, opener(address, options), silence);
  if (share !== false) hubs.set(name, hub);
  const reader = new Reader(names, options);
  hub.add(reader);
  return {
    /**
     * Have a function called with each event of this name, "message" where it has none.
     *
     * @param {string} name
     * @param {Handler} handler
     * @param {{ channel?: string }} [only] of this channel, and not of all.
     * @returns {() => void} ends that.
     */
    on(name, handler, { channel } = {}) {
      const entry = { name, handler, channel };
      reader.handlers.add(entry);
      return () => void reader.handlers.delete(entry);
    },
    /** End it; and the connection, where nobody else reads. Nothing is called any more. */
    close() {
      hub.remove(reader);
    },
    /** @returns {State} */
    get state() {
      return reader.state;
    },
    /** Those that were not refused. */
    get channels() {
      return [...reader.channels];
    },
  };
}
