/**
 * One subscription: what it wants, how far it is, and what its owner is told.
 *
 * @module
 */

import { ahead, ID, reaches, UNKNOWN } from "./stream.js";
import { isSameReader } from "./whose.js";

/** @typedef {import("./messages.js").At} At */
/** @typedef {import("./messages.js").OfLeader} OfLeader */
/** @typedef {import("./messages.js").Skip} Skip */
/** @typedef {import("./messages.js").Told} Told */
/** @typedef {import("./sse-emitters.js").Handler} Handler */
/** @typedef {import("./sse-emitters.js").Options} Options */
/** @typedef {import("./sse-emitters.js").State} State */

/**
 * Call a function of the page: what it throws is reported, and keeps no other from being called.
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

export class Subscription {
  /** @type {State} */
  state = "connecting";
  /** Of the channels that have begun. @type {Map<string, string>} */
  positions = new Map();
  /** Those whose position is what the page says: no event has come since. @type {Set<string>} */
  claims = new Set();
  /** Who reads the page: by channel, the tag that the server gave last. @type {Map<string, string>} */
  tags = new Map();
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

  /** End it: nothing is called any more. */
  close() {
    this.enter("closed");
    this.channels.clear();
    this.positions.clear();
  }

  /**
   * Note who reads this page.
   *
   * @param {Map<string, string>} tags
   * @returns {boolean} false where it is somebody else than before.
   */
  adopt(tags) {
    for (const channel of this.channels) {
      const [known, tag] = [this.tags.get(channel), tags.get(channel)];
      if (known !== undefined && tag !== undefined && !isSameReader(known, tag)) return false;
      if (tag !== undefined) this.tags.set(channel, tag);
    }
    return true;
  }

  /** Tell the page that it was closed because somebody else reads now. */
  tellReaderChange() {
    call(this.options.onReaderChange, undefined);
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
    if (message.type === "refused") this.giveUp(message);
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

  /** Go on without a channel. @param {import("./sse-emitters.js").Refusal} refusal */
  giveUp({ channel, status, message }) {
    if (!this.channels.delete(channel)) return;
    this.positions.delete(channel);
    call(this.options.onError, { channel, status, message });
    if (!this.channels.size) this.enter("closed");
  }
}
