/**
 * One subscription: its channels, its positions in them, and the callbacks of its owner.
 *
 * @module
 */

import { distance, ID, reaches, UNKNOWN_ID } from "./positions.js";
import { isSameReader } from "./identity.js";

/** @typedef {import("./messages.js").PositionMessage} PositionMessage */
/** @typedef {import("./messages.js").LeaderMessage} LeaderMessage */
/** @typedef {import("./messages.js").GapMessage} GapMessage */
/** @typedef {import("./messages.js").EndMessage} EndMessage */
/** @typedef {import("./messages.js").EventMessage} EventMessage */
/** @typedef {import("./sse-emitters.js").Handler} Handler */
/** @typedef {import("./sse-emitters.js").Options} Options */
/** @typedef {import("./sse-emitters.js").State} State */

/**
 * Call a function of the page. An error in it is reported, and does not keep others from being called.
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

/** An event that was published. */
export class ChannelEvent {
  /** @param {EventMessage} event */
  constructor({ channel, name, data, id }) {
    this.channel = channel;
    /** "message" where it was published without a name. */
    this.name = name;
    this.data = data;
    /** The id that publishing it returned. */
    this.id = id;
  }

  /** The data, read as JSON. @returns {any} */
  json() {
    return JSON.parse(this.data);
  }
}

export class Subscription {
  /** @type {State} */
  state = "connecting";
  /** By channel, once it has begun: the id of the last event. @type {Map<string, string>} */
  positions = new Map();
  /** Channels at the position that the page gave: no event has come since. @type {Set<string>} */
  claims = new Set();
  /** By channel, the last tag of the reader from the server. @type {Map<string, string>} */
  tags = new Map();
  /** @type {Set<{ name: string, handler: Handler, channel: string | undefined }>} */
  handlers = new Set();

  /** @param {string[]} channels @param {Options} options */
  constructor(channels, options) {
    this.channels = new Set(channels);
    this.options = options;
    for (const [channel, id] of Object.entries(options.since ?? {})) {
      if (!id || !this.channels.has(channel)) continue;
      this.positions.set(channel, ID.test(id) ? id : UNKNOWN_ID);
      if (ID.test(id)) this.claims.add(channel);
    }
  }

  /** @param {State} state */
  enter(state) {
    if (this.state === state || this.state === "closed") return;
    this.state = state;
    call(this.options.onState, state);
  }

  /** End it: no callback is called afterwards. */
  close() {
    this.enter("closed");
    this.channels.clear();
    this.positions.clear();
  }

  /**
   * Note who reads this page now.
   *
   * @param {Map<string, string>} tags
   * @returns {boolean} false if it is another reader than before.
   */
  confirmReader(tags) {
    for (const channel of this.channels) {
      const [known, tag] = [this.tags.get(channel), tags.get(channel)];
      if (known !== undefined && tag !== undefined && !isSameReader(known, tag)) return false;
      if (tag !== undefined) this.tags.set(channel, tag);
    }
    return true;
  }

  /** Tell the page that this was closed because another reader is logged in now. */
  reportReaderChange() {
    call(this.options.onReaderChange, undefined);
  }

  /**
   * Receive a message of the leader.
   *
   * @param {LeaderMessage} message
   * @returns {boolean} false if events before it are missing.
   */
  receive(message) {
    if (message.type === "at") return this.#applyPosition(message);
    if (message.type === "events") return message.events.every((event) => this.#take(event));
    if (message.type === "gap") this.#applyGap(message);
    if (message.type === "ended") return this.#applyEnd(message);
    if (message.type === "refused") this.giveUp(message);
    return true;
  }

  /** @param {PositionMessage} at */
  #applyPosition({ heads, cursors, live }) {
    for (const [channel, id] of heads) {
      if (this.channels.has(channel) && !this.positions.has(channel)) this.positions.set(channel, id);
    }
    const isOpen = [...this.channels].every((channel) => live.includes(channel) && this.positions.has(channel));
    this.enter(isOpen ? "open" : "connecting");
    return cursors.every(([channel, id]) => reaches(this.positions.get(channel) ?? id, id));
  }

  /** @param {EventMessage} event */
  #take(event) {
    const position = this.positions.get(event.channel);
    if (position === undefined) return true;
    if (!reaches(position, event.after)) return false;
    if (distance(event.id, position) <= 0) return true; // a duplicate; in another epoch the distance is NaN
    this.positions.set(event.channel, event.id);
    this.claims.delete(event.channel);
    const received = new ChannelEvent(event);
    call(this.options.onEvent, received);
    for (const { name, handler, channel = event.channel } of [...this.handlers]) {
      if (name === event.name && channel === event.channel && this.state !== "closed") call(handler, received);
    }
    return true;
  }

  /** @param {GapMessage} gap */
  #applyGap({ at, newest }) {
    const channels = [];
    const ends = new Map(newest);
    for (const [channel, id] of at) {
      const position = this.positions.get(channel);
      if (position === undefined) continue;
      const isBeyond = distance(position, ends.get(channel) ?? position) > 0; // beyond the newest event
      if (distance(position, id) >= 0 && !isBeyond) continue;
      this.positions.set(channel, id);
      this.claims.delete(channel);
      channels.push(channel);
    }
    if (channels.length) call(this.options.onGap, { channels });
  }

  /** @param {EndMessage} end @returns {boolean} false if events before it are missing. */
  #applyEnd({ at }) {
    const mine = at.filter(([channel]) => this.channels.has(channel));
    const over = mine.filter(([channel, id]) => reaches(this.positions.get(channel) ?? UNKNOWN_ID, id));
    for (const [channel] of over) {
      this.channels.delete(channel);
      this.positions.delete(channel);
    }
    if (over.length) call(this.options.onEnd, { channels: over.map(([channel]) => channel) });
    if (!this.channels.size) this.enter("closed");
    return over.length === mine.length;
  }

  /** Continue without a channel that was refused. @param {import("./sse-emitters.js").Refusal} refusal */
  giveUp({ channel, status, message }) {
    if (!this.channels.delete(channel)) return;
    this.positions.delete(channel);
    call(this.options.onError, { channel, status, message });
    if (!this.channels.size) this.enter("closed");
  }
}

/** Return all channels of these subscriptions, each once. @param {Iterable<Subscription>} subscriptions */
export function channelsOf(subscriptions) {
  return [...new Set([...subscriptions].flatMap(({ channels }) => [...channels]))];
}
