/**
 * Ids, and the positions of a stream in its channels: the rules, without timers, requests and messages.
 *
 * An id is `<epoch>-<offset>`. A stream of several channels joins theirs with commas.
 *
 * @module
 */

/** @typedef {import("./messages.js").Ids} Ids */
/** @typedef {{ at: Ids, newest: Ids }} Gap all events after the ids of `at` are kept. */

/** One channel's part of an id: the epoch, and the offset in it. */
export const ID = /^[0-9A-Za-z]{1,32}-(0|[1-9][0-9]{0,14})$/;

/** An id of no channel: the server answers it with a gap, and with all events that it keeps. */
export const UNKNOWN_ID = "0-0";

/**
 * Return how many events one id is after another; NaN where the channel has another epoch.
 *
 * @param {string} id
 * @param {string} other
 */
export function distance(id, other) {
  const [epoch, offset] = id.split("-");
  const [otherEpoch, otherOffset] = other.split("-");
  return epoch === otherEpoch ? Number(offset) - Number(otherOffset) : NaN;
}

/**
 * Return whether a subscription at this id has all events up to the other id.
 *
 * @param {string} id
 * @param {string} start
 */
export function reaches(id, start) {
  return start === UNKNOWN_ID || distance(id, start) >= 0;
}

/**
 * Keep the earlier of this id and the known one; {@link UNKNOWN_ID} where their order is unknown.
 *
 * @param {Map<string, string>} ids by channel.
 * @param {string} channel
 * @param {string} id
 */
export function keepEarliest(ids, channel, id) {
  const known = ids.get(channel) ?? id;
  const ahead = distance(id, known);
  ids.set(channel, Number.isNaN(ahead) ? UNKNOWN_ID : ahead < 0 ? id : known);
}

/** Keep the later of this id and the known one. @type {typeof keepEarliest} */
function keepLatest(ids, channel, id) {
  const known = ids.get(channel);
  if (known === undefined || !(distance(known, id) >= 0)) ids.set(channel, id);
}

/**
 * Return each channel's part of a stream's id; null if it has other parts.
 *
 * @param {string} id
 * @param {string[]} channels
 * @returns {Ids | null}
 */
export function splitId(id, channels) {
  const ids = id.split(",");
  if (ids.length !== channels.length || !ids.every((part) => ID.test(part))) return null;
  return ids.map((part, index) => [channels[index], part]);
}

/**
 * Return the ids after which all events are kept, and the newest ids; null if the data is no gap.
 *
 * @param {string} data
 * @param {string[]} channels
 * @returns {Gap | null}
 */
export function readGap(data, channels) {
  try {
    const { oldest, newest } = JSON.parse(data);
    const start = String(oldest).replace(/[0-9]+(?=,|$)/g, (offset) => String(Number(offset) - 1));
    const [at, end] = [splitId(start, channels), splitId(String(newest), channels)];
    return at && end && { at, newest: end };
  } catch {
    return null;
  }
}

/** The leader's positions in the channels of its stream. */
export class Positions {
  /** The stream's position in each channel, or where it will begin. @type {Map<string, string>} */
  #cursors = new Map();
  /** The newest known position of each channel: new subscriptions begin there. @type {Map<string, string>} */
  #heads = new Map();
  /** Positions that pages gave, which may be beyond the newest event. @type {Map<string, string>} */
  #claims = new Map();

  /** Return whether the stream can begin at a position in this channel. @param {string} channel */
  has(channel) {
    return this.#cursors.has(channel);
  }

  /** Return the positions that are known of these channels, in their order. @param {string[]} channels */
  of(channels) {
    return channels.flatMap((channel) => this.#cursors.get(channel) ?? []);
  }

  /**
   * Return where channels have ended; {@link UNKNOWN_ID} where nothing was left to read.
   *
   * @param {string[]} channels
   * @returns {Ids}
   */
  ends(channels) {
    return channels.map((channel) => [channel, this.#cursors.get(channel) ?? UNKNOWN_ID]);
  }

  /** All positions of the stream, and the newest ones known. */
  get all() {
    const cursors = [...this.#cursors];
    const heads = [...new Map([...cursors.filter(([, id]) => id !== UNKNOWN_ID), ...this.#heads])];
    return { heads, cursors };
  }

  /**
   * Include the positions of a tab's lagging subscriptions.
   *
   * @param {Ids} since
   * @param {Ids} claims
   * @returns {boolean} whether the stream must go back in a channel.
   */
  include(since, claims) {
    for (const [channel, id] of since) if (id !== UNKNOWN_ID) keepLatest(this.#heads, channel, id);
    for (const [channel, id] of claims) keepLatest(this.#claims, channel, id);
    let mustGoBack = false;
    for (const [channel, id] of [...since, ...claims]) {
      const cursor = this.#cursors.get(channel);
      keepEarliest(this.#cursors, channel, id);
      mustGoBack ||= !!cursor && cursor !== this.#cursors.get(channel);
    }
    return mustGoBack;
  }

  /** Note that the stream is at these positions now. @param {Ids} ids */
  advance(ids) {
    for (const [channel, id] of ids) {
      this.#cursors.set(channel, id);
      keepLatest(this.#heads, channel, id);
    }
  }

  /**
   * Advance to an event.
   *
   * @param {Ids} ids of all channels of the stream.
   * @returns {{ channel: string, id: string, after: string } | null} null for an event that the stream has had.
   */
  advanceToEvent(ids) {
    const moved = ids.filter(([channel, id]) => this.#cursors.get(channel) !== id);
    if (moved.length > 1) throw new Error("events were dropped on the way: the channel of this one is unknown");
    if (!moved.length) return null;
    const [channel, id] = moved[0];
    const after = this.#cursors.get(channel) ?? id;
    this.advance(moved);
    return { channel, id, after };
  }

  /**
   * Advance past a gap.
   *
   * @param {Gap} gap
   * @returns {Ids} the newest ids, as far as they are certain.
   */
  skip({ at, newest }) {
    // A process that lags behind the others looks up the newest id only for a request with an id that it does not know.
    const certain = newest.filter(([channel, id]) => !(distance(this.#cursors.get(channel) ?? id, id) <= 0));
    for (const [channel, id] of certain) {
      this.#heads.set(channel, id);
      this.#claims.delete(channel);
    }
    this.advance(at);
    return certain;
  }

  /** Return a channel with a claim beyond what the stream has asked for: only the server knows whether it is a gap. */
  findDoubtfulClaim() {
    for (const [channel, claim] of this.#claims) {
      const known = this.#heads.get(channel) ?? this.#cursors.get(channel) ?? claim;
      if (distance(claim, known) > 0) return channel;
    }
  }

  /**
   * Compare the claim to a channel with the server's answer.
   *
   * @param {string} channel
   * @param {Gap} gap
   * @returns {string | undefined} the newest id if the claim is beyond it: the stream goes back to the gap.
   */
  settleClaim(channel, { at, newest }) {
    const claim = this.#claims.get(channel);
    if (!claim) return;
    this.#claims.delete(channel);
    keepLatest(this.#heads, channel, newest[0][1]);
    const head = this.#heads.get(channel) ?? claim; // the stream may have received more since
    if (!(distance(claim, head) > 0)) return;
    keepEarliest(this.#cursors, channel, at[0][1]);
    return head;
  }

  /** @param {(channel: string) => boolean} isKept */
  forget(isKept) {
    for (const ids of [this.#cursors, this.#heads, this.#claims]) {
      for (const channel of [...ids.keys()]) if (!isKept(channel)) ids.delete(channel);
    }
  }
}
