/**
 * One stream of the server: its limits, its request, and its decoder.
 *
 * It uses fetch, since an EventSource reports neither why it was refused nor which event had no id, cannot begin after
 * a given id, and sends no headers of yours.
 *
 * @module
 */

import { readGap, UNKNOWN_ID } from "./positions.js";

/**
 * The fields between two blank lines. Without `data` it is no event; an id without an event is a position.
 *
 * @typedef {{ name: string, data?: string, id?: string, retry?: number, comment?: string }} Block
 */

/** Decodes an event stream in pieces, cut anywhere: WHATWG HTML, section 9.2.6. */
export class StreamDecoder {
  #utf8 = new TextDecoder();
  #unfinished = ""; // the line whose end has not come yet
  #isAfterCr = false;
  /** @type {Block | null} */
  #block = null;

  /**
   * Decode these bytes, and return the blocks that they complete.
   *
   * @param {Uint8Array} bytes
   */
  feed(bytes) {
    let text = this.#utf8.decode(bytes, { stream: true });
    if (!text) return [];
    if (this.#isAfterCr && text.startsWith("\n")) text = text.slice(1); // it belongs to that line end
    this.#isAfterCr = text.endsWith("\r");
    const lines = (this.#unfinished + text).split(/\r\n|\r|\n/);
    this.#unfinished = lines.pop() ?? "";
    const blocks = [];
    for (const line of lines) {
      if (line) this.#take(line);
      else if (this.#block) blocks.push(this.#block);
      if (!line) this.#block = null;
    }
    return blocks;
  }

  /** @param {string} line */
  #take(line) {
    const block = (this.#block ??= { name: "message" });
    const colon = line.includes(":") ? line.indexOf(":") : line.length;
    const field = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") block.data = block.data === undefined ? value : `${block.data}\n${value}`;
    else if (field === "event") block.name = value || "message";
    else if (field === "id" && !value.includes("\0")) block.id = value;
    else if (field === "retry" && /^[0-9]+$/.test(value)) block.retry = Number(value);
    else if (field === "") block.comment = value;
  }
}

/** The server refuses, and asking again would not help. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The channels of a request have ended, and there is nothing left for this client. */
export class Ended extends Error {}

/** The name and the id of the last event of a stream that has ended for good. */
export const END = "~end";

/** The server's limit for one stream. */
const MAX_CHANNELS = 50;

/** The limit of a stream's query, since servers limit the length of a line: gunicorn to 4,094 characters. */
const MAX_QUERY_CHARACTERS = 3_500;

/**
 * Find the channels that do not fit into one stream with those before them.
 *
 * @param {string[]} channels
 * @returns {Generator<[channel: string, refused: Refused]>}
 */
export function* findExcess(channels) {
  let [count, length] = [0, 0];
  for (const channel of channels) {
    const more = `&${new URLSearchParams({ channel })}`.length;
    if (count === MAX_CHANNELS) {
      yield [channel, new Refused(400, `one browser reads ${MAX_CHANNELS} channels at most`)];
    } else if (length + more > MAX_QUERY_CHARACTERS) {
      yield [channel, new Refused(414, `one browser asks in ${MAX_QUERY_CHARACTERS} characters for its channels`)];
    } else [count, length] = [count + 1, length + more];
  }
}

/** @typedef {ReadableStream<Uint8Array>} Body */
/** @typedef {(channels: string[], lastEventId: string, signal: AbortSignal) => Promise<Body>} Open */

/**
 * The server's answer: for each channel in order a tag of the reader; null from a server without tags. A HEAD gets no
 * body, nor does a client for whom nothing is left: a 204.
 *
 * @typedef {{ body: Body | null, tags: string[] | null }} Answer
 */

/** @typedef {(channels: string[], lastEventId: string, signal: AbortSignal, method?: string) => Promise<Answer>} Ask */

/** The random delay beyond the server's `retry` is at most so long. */
const MAX_JITTER_MS = 30_000;

/**
 * Make the function that requests a stream of some channels. It rejects with {@link Refused}, or with an error that may
 * be temporary.
 *
 * @param {URL} url
 * @param {import("./sse-emitters.js").Options} options
 * @returns {Ask}
 */
export function makeRequester(url, { withCredentials = false, headers }) {
  const credentials = withCredentials ? "include" : "same-origin";
  return async (channels, lastEventId, signal, method = "GET") => {
    const asked = new URL(url);
    for (const channel of channels) asked.searchParams.append("channel", channel);
    const sent = new Headers(await (typeof headers === "function" ? headers() : headers));
    sent.set("Accept", "text/event-stream");
    if (lastEventId) sent.set("Last-Event-ID", lastEventId);
    const response = await fetch(asked, { method, headers: sent, credentials, cache: "no-store", signal });
    const { status, statusText, body } = response;
    const isStream = /^text\/event-stream\s*(;|$)/i.test(response.headers.get("Content-Type") ?? "");
    const isHead = method === "HEAD";
    const isOver = status === 204; // browsers do not agree on its body
    if ((status === 200 && isStream && (body || isHead)) || isOver) {
      const tags = response.headers.get("SSE-Reader")?.split(" ") ?? null;
      return { body: isOver ? null : body, tags: tags?.length === channels.length ? tags : null };
    }
    if (isHead && [405, 501].includes(status)) return { body: null, tags: null };
    if (status === 200) throw body?.cancel(), new Refused(status, `${asked} is no event stream`);
    const reason = (await response.text()).slice(0, 500).trim() || statusText;
    if (status >= 500 || [408, 425, 429].includes(status)) throw new Error(`${status} ${reason}`);
    throw new Refused(status, reason);
  };
}

/**
 * Wait for some milliseconds plus a random time, at most as long again, which doubles with each failure; or until the
 * network is back.
 *
 * @param {number} retry
 * @param {number} failures in a row.
 * @param {AbortSignal} signal ends the wait.
 */
export function pause(retry, failures, signal) {
  const jitter = Math.random() * Math.min(MAX_JITTER_MS, Math.max(retry, 100) * 2 ** failures);
  return new Promise((resolve) => {
    const waiting = new AbortController();
    const end = () => {
      clearTimeout(timer);
      waiting.abort();
      resolve(undefined);
    };
    const timer = setTimeout(end, retry + jitter);
    signal.addEventListener("abort", end, { signal: waiting.signal });
    globalThis.addEventListener?.("online", end, { signal: waiting.signal });
  });
}

/**
 * Pass the pieces of a stream on as they come, until it ends or `take` returns false.
 *
 * @param {Body} body
 * @param {number} silence seconds without a byte after which the stream counts as ended; 0 is never.
 * @param {(bytes: Uint8Array) => boolean} take returns false to end.
 */
export async function pump(body, silence, take) {
  const reader = body.getReader();
  const end = () => void reader.cancel().catch(() => {}); // it may have broken already
  let received = performance.now();
  const check = () => performance.now() - received > silence * 1000 && end();
  const watch = silence ? setInterval(check, silence * 250) : undefined;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      received = performance.now();
      if (done || !take(value)) return;
    }
  } finally {
    clearInterval(watch);
    end();
  }
}

/**
 * Fetch the gap that the server answers an unknown id with: it contains the newest position of the channel.
 *
 * @param {string} channel
 * @param {Open} open
 * @param {AbortSignal} signal
 * @param {number} silence see {@link pump}.
 */
export async function fetchGap(channel, open, signal, silence) {
  const decoder = new StreamDecoder();
  /** @type {ReturnType<typeof readGap>} */
  let gap = null;
  await pump(await open([channel], UNKNOWN_ID, signal), silence, (bytes) => {
    const block = decoder.feed(bytes).find(({ name, id }) => name === "gap" && id === undefined);
    if (block) gap = readGap(block.data ?? "", [channel]);
    return !block;
  });
  if (!gap) throw new Error("the server asks to come back later");
  return /** @type {NonNullable<ReturnType<typeof readGap>>} */ (gap);
}
