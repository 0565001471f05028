/**
 * The reader of this page. The server names them with a tag for each channel: the same for the same reader, and opaque.
 *
 * Before a tab shares a connection, it asks for these tags with its current cookies and headers. It shares only with tabs
 * of the same reader.
 *
 * @module
 */

import { Refused } from "./stream.js";

/** The name by which each reader reads their own channel. */
export const OWN_CHANNEL = "~";

/** The tag of a channel that the server lets anyone read, or whose rule names no reader. */
export const UNIDENTIFIED = "-";

/** The tag of a reader whom the server does not name, because it has an older version. */
export const UNTAGGED = "?";

/**
 * Return whether two tags belong to the same reader: they share a part. While the server changes its SECRET_KEY, a tag
 * has a part for each key, newest first, joined with dots.
 *
 * @param {string} tag
 * @param {string} other
 */
export function isSameReader(tag, other) {
  return tag.split(".").some((part) => other.split(".").includes(part));
}

/**
 * The readers of channels, and the channels that were refused. A server of an older version gives no tags.
 *
 * @typedef {{ tags: Map<string, string>, refused: Map<string, Refused> }} Readers
 */

/**
 * Ask the server who reads these channels; if it refuses them together, ask about each half.
 *
 * @param {import("./stream.js").Ask} ask
 * @param {string[]} channels
 * @param {AbortSignal} signal
 * @returns {Promise<Readers>}
 */
export async function fetchReaders(ask, channels, signal) {
  try {
    return { tags: tagsByChannel(channels, (await ask(channels, "", signal, "HEAD")).tags), refused: new Map() };
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
  }
  if (channels.length === 1) return fetchRefusal(ask, channels, signal);
  const half = channels.length >> 1;
  const first = await fetchReaders(ask, channels.slice(0, half), signal);
  const second = await fetchReaders(ask, channels.slice(half), signal);
  return {
    tags: new Map([...first.tags, ...second.tags]),
    refused: new Map([...first.refused, ...second.refused]),
  };
}

/** Ask why one is refused, which the answer to a HEAD does not tell. @type {typeof fetchReaders} */
async function fetchRefusal(ask, channels, signal) {
  try {
    const { body, tags } = await ask(channels, "", signal);
    body?.cancel().catch(() => {});
    return { tags: tagsByChannel(channels, tags), refused: new Map() }; // a token was renewed meanwhile, say
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return { tags: new Map(), refused: new Map([[channels[0], error]]) };
  }
}

/** @param {string[]} channels @param {string[] | null} tags @returns {Map<string, string>} */
export function tagsByChannel(channels, tags) {
  return new Map((tags ?? []).map((tag, index) => [channels[index], tag]));
}
