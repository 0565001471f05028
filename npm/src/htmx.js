/**
 * What htmx 2 reads streams with, in place of the browser's `EventSource`: it keeps its place whatever the server answers.
 *
 * @example
 * import { createEventSource } from "flask-sse-emitters/htmx";
 * htmx.createEventSource = createEventSource;
 *
 * @module
 */

import { END, makeRequester, pause, pump, StreamDecoder } from "../../flask_sse_emitters/server/static/stream.js";

/** Seconds without a byte after which the connection counts as dead: more than SSE_HEARTBEAT. */
const SILENCE = 45;

/**
 * Open a stream as an `EventSource` would, with cookies.
 *
 * After an error answer, such as 503, it comes back with its last id, as after a break: it is never closed by one, so htmx
 * has no reason to begin anew, without an id. After a 204, and after an end for good, it is closed in silence.
 *
 * @param {string} url
 * @returns {EventSource}
 */
export function createEventSource(url) {
  return /** @type {EventSource} */ (/** @type {unknown} */ (new ResumingEventSource(url)));
}

class ResumingEventSource extends EventTarget {
  CONNECTING = 0;
  OPEN = 1;
  CLOSED = 2;
  /** 0 while it connects, for the first time or again, 1 while it is open, 2 once it is closed. */
  readyState = 0;
  withCredentials = true;
  /** @type {((event: Event) => void) | null} */
  onopen = null;
  /** @type {((event: Event) => void) | null} */
  onmessage = null;
  /** @type {((event: Event) => void) | null} */
  onerror = null;
  #closing = new AbortController();
  #lastEventId = "";
  #retry = 3_000;
  #hasEvents = false;

  /** @param {string} url */
  constructor(url) {
    super();
    this.url = new URL(url, document.baseURI).href;
    this.addEventListener("open", (event) => this.onopen?.(event));
    this.addEventListener("message", (event) => this.onmessage?.(event));
    this.addEventListener("error", (event) => this.onerror?.(event));
    this.#run(this.#closing.signal);
  }

  close() {
    this.readyState = this.CLOSED;
    this.#closing.abort();
  }

  /** Read streams one after the other, until closed. @param {AbortSignal} signal */
  async #run(signal) {
    const ask = makeRequester(new URL(this.url), { withCredentials: true });
    for (let failures = 0; !signal.aborted; ) {
      this.#hasEvents = false;
      await this.#read(ask, signal).catch(() => {}); // what went wrong does not matter: it comes back
      if (signal.aborted) return;
      failures = this.#hasEvents ? 0 : failures + 1;
      this.readyState = this.CONNECTING;
      this.dispatchEvent(new Event("error"));
      await pause(this.#retry, failures, signal);
    }
  }

  /** @param {import("../../flask_sse_emitters/server/static/stream.js").Ask} ask @param {AbortSignal} signal */
  async #read(ask, signal) {
    const { body } = await ask([], this.#lastEventId, signal);
    if (!body) return this.close();
    if (signal.aborted) return void body.cancel().catch(() => {});
    this.readyState = this.OPEN;
    this.dispatchEvent(new Event("open"));
    const decoder = new StreamDecoder();
    await pump(body, SILENCE, (bytes) => {
      for (const block of decoder.feed(bytes)) if (!signal.aborted) this.#take(block);
      return !signal.aborted;
    });
  }

  /** @param {import("../../flask_sse_emitters/server/static/stream.js").Block} block */
  #take({ name, data, id, retry }) {
    this.#hasEvents = true;
    this.#retry = retry ?? this.#retry;
    this.#lastEventId = id ?? this.#lastEventId;
    if (data === undefined) return;
    const { origin } = new URL(this.url);
    this.dispatchEvent(new MessageEvent(name, { data, lastEventId: this.#lastEventId, origin }));
    if (id === END) this.close();
  }
}
