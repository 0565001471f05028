/**
 * Who reads this page. The server says so with a tag for each channel: the same for the same reader, and opaque.
 *
 * A tab asks before it shares a connection, with the cookies and headers that it has then, and shares with tabs of the
 * same reader alone.
 *
 * @module
 */

import { Refused } from "./stream.js";

/** The channel of which each reader has one of their own. */
export const OWN = "~";

/** The tag of a channel that the server gives without knowing who reads. */
export const ANYBODY = "-";

/** The tag of a reader of whom the server says nothing, because it is one of an older version. */
export const SOMEBODY = "?";

/**
 * Whether two tags are of the same reader: they have a part in common. While the server changes its SECRET_KEY, a tag
 * has a part for each key, newest first, joined with dots.
 *
 * @param {string} tag
 * @param {string} other
 */
export function isSameReader(tag, other) {
  return tag.split(".").some((part) => other.split(".").includes(part));
}

/**
 * Without a tag for the channels of a server that knows none.
 *
 * @typedef {{ tags: Map<string, string>, refused: Map<string, Refused> }} Whose
 */

/**
 * Ask about these channels; where the server refuses them together, about each half.
 *
 * @param {import("./stream.js").Ask} ask
 * @param {string[]} channels
 * @param {AbortSignal} signal
 * @returns {Promise<Whose>}
 */
export async function askWhose(ask, channels, signal) {
  try {
    return { tags: byChannel(channels, (await ask(channels, "", signal, "HEAD")).tags), refused: new Map() };
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
  }
  if (channels.length === 1) return askWhy(ask, channels, signal);
  const half = channels.length >> 1;
  const first = await askWhose(ask, channels.slice(0, half), signal);
  const second = await askWhose(ask, channels.slice(half), signal);
  return {
    tags: new Map([...first.tags, ...second.tags]),
    refused: new Map([...first.refused, ...second.refused]),
  };
}

/** Learn why, which the answer to a HEAD does not say. @type {typeof askWhose} */
async function askWhy(ask, channels, signal) {
  try {
    const { body, tags } = await ask(channels, "", signal);
    body?.cancel().catch(() => {});
    return { tags: byChannel(channels, tags), refused: new Map() }; // a token was renewed meanwhile, say
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return { tags: new Map(), refused: new Map([[channels[0], error]]) };
  }
}

/** @param {string[]} channels @param {string[] | null} tags @returns {Map<string, string>} */
export function byChannel(channels, tags) {
  return new Map((tags ?? []).map((tag, index) => [channels[index], tag]));
}
