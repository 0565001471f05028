/**
 * One stream of the server: its ids, how it is asked for, and what its bytes say.
 *
 * It is fetched rather than left to an EventSource, which says neither why it was refused nor which event had no id,
 * begins where it likes, and sends no headers of yours.
 *
 * @module
 */

/** One channel's part of an id: the epoch, and the offset in it. */
export const ID = /^[0-9A-Za-z]{1,32}-(0|[1-9][0-9]{0,14})$/;

/** Of no channel: the server answers it with a gap, and with all that it keeps. */
export const UNKNOWN = "0-0";

/**
 * How far one id is after another; NaN where the channel began anew between them.
 *
 * @param {string} id
 * @param {string} other
 */
export function ahead(id, other) {
  const [epoch, offset] = id.split("-");
  const [otherEpoch, otherOffset] = other.split("-");
  return epoch === otherEpoch ? Number(offset) - Number(otherOffset) : NaN;
}

/**
 * Whether somebody who is here misses nothing of what follows after the other id.
 *
 * @param {string} id
 * @param {string} start
 */
export function reaches(id, start) {
  return start === UNKNOWN || ahead(id, start) >= 0;
}

/**
 * Note that somebody is only here: the farthest back remains, and {@link UNKNOWN} where that cannot be told.
 *
 * @param {Map<string, string>} ids by channel.
 * @param {string} channel
 * @param {string} id
 */
export function lower(ids, channel, id) {
  const known = ids.get(channel) ?? id;
  const distance = ahead(id, known);
  ids.set(channel, Number.isNaN(distance) ? UNKNOWN : distance < 0 ? id : known);
}

/**
 * What stood between two blank lines. Without `data` it is no event, and an id without an event is a position.
 *
 * @typedef {{ name: string, data?: string, id?: string, retry?: number, comment?: string }} Block
 */

/** Reads an event stream piece by piece, cut anywhere: WHATWG HTML, section 9.2.6. */
export class StreamDecoder {
  #utf8 = new TextDecoder();
  #begun = "";
  #isAfterCr = false;
  /** @type {Block | null} */
  #block = null;

  /**
   * The blocks that these bytes complete.
   *
   * @param {Uint8Array} bytes
   */
  feed(bytes) {
    let text = this.#utf8.decode(bytes, { stream: true });
    if (!text) return [];
    if (this.#isAfterCr && text.startsWith("\n")) text = text.slice(1); // it belongs to that line end
    this.#isAfterCr = text.endsWith("\r");
    const lines = (this.#begun + text).split(/\r\n|\r|\n/);
    this.#begun = lines.pop() ?? "";
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

/** The server says no, and to ask again is of no use. */
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

/** @typedef {ReadableStream<Uint8Array>} Body */
/** @typedef {(channels: string[], lastEventId: string, signal: AbortSignal) => Promise<Body>} Open */

/**
 * What the server answers: for each channel in order a tag of the reader, null from a server that knows no tags. To a
 * HEAD there is no body.
 *
 * @typedef {{ body: Body | null, tags: string[] | null }} Answer
 */

/** @typedef {(channels: string[], lastEventId: string, signal: AbortSignal, method?: string) => Promise<Answer>} Ask */

/** Milliseconds: so much is added at most to the server's `retry`, by chance. */
const MOST_JITTER = 30_000;

/**
 * Make the function that asks for a stream of some channels. It rejects with {@link Refused}, or because of something
 * that may pass.
 *
 * @param {URL} url
 * @param {import("./sse-emitters.js").Options} options
 * @returns {Ask}
 */
export function asker(url, { withCredentials = false, headers }) {
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
    if (status === 200 && isStream && (body || isHead)) {
      const tags = response.headers.get("SSE-Reader")?.split(" ") ?? null;
      return { body, tags: tags?.length === channels.length ? tags : null };
    }
    if (isHead && [405, 501].includes(status)) return { body: null, tags: null };
    if (status === 200) throw body?.cancel(), new Refused(status, `${asked} is no event stream`);
    const said = (await response.text()).slice(0, 500).trim() || statusText;
    if (status >= 500 || [408, 425, 429].includes(status)) throw new Error(`${status} ${said}`);
    throw new Refused(status, said);
  };
}

/**
 * Wait for some milliseconds, and by chance up to as long again, twice that after a failure, and so on; or until the
 * network is back.
 *
 * @param {number} retry
 * @param {number} failures in a row.
 * @param {AbortSignal} signal ends it.
 */
export function pause(retry, failures, signal) {
  const jitter = Math.random() * Math.min(MOST_JITTER, Math.max(retry, 100) * 2 ** failures);
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
 * Take the pieces of a stream as they come, until it ends or nobody wants more.
 *
 * @param {Body} body
 * @param {number} silence after so many seconds without a byte it counts as ended; 0 is never.
 * @param {(bytes: Uint8Array) => boolean} take false where it wants no more.
 */
export async function pump(body, silence, take) {
  const reader = body.getReader();
  const end = () => void reader.cancel().catch(() => {}); // it may have broken already
  let heard = performance.now();
  const check = () => performance.now() - heard > silence * 1000 && end();
  const watch = silence ? setInterval(check, silence * 250) : undefined;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      heard = performance.now();
      if (done || !take(value)) return;
    }
  } finally {
    clearInterval(watch);
    end();
  }
}
