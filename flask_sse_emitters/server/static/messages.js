/**
 * What tabs say to each other through a BroadcastChannel.
 *
 * @module
 */

import { ID } from "./stream.js";

/** @typedef {import("./sse-emitters.js").Refusal} Refusal */
/** @typedef {{ channel: string, id: string, after: string, name: string, data: string }} Told an event under way. */
/** @typedef {[channel: string, id: string][]} Ids */
/** @typedef {[channel: string, tag: string][]} Tags */
/**
 * @typedef {{ type: "join", tab: string, term: number, channels: string[], tags: Tags, since: Ids, claims: Ids }} Join
 */
/** @typedef {{ type: "leave", tab: string }} Leave */
/** @typedef {{ type: "hello", term: number }} Hello */
/** @typedef {{ type: "at", term: number, to?: string, heads: Ids, cursors: Ids, live: string[] }} At */
/** @typedef {{ type: "events", term: number, events: Told[] }} Events */
/** @typedef {{ type: "gap", term: number, at: Ids, newest: Ids }} Skip */
/** @typedef {{ type: "refused", term: number } & Refusal} GivenUp */
/** @typedef {Hello | At | Events | Skip | GivenUp} OfLeader */

/** @param {unknown} value */
const isText = (value) => typeof value === "string";
/** @param {unknown} value */
const isTexts = (value) => Array.isArray(value) && value.every(isText);
/** @param {unknown} value */
const isIds = (value) => Array.isArray(value) && value.every((pair) => isTexts(pair) && ID.test(pair[1]));
/** @param {unknown} value */
const isTags = (value) => Array.isArray(value) && value.every((pair) => isTexts(pair) && pair.length === 2);
/** @param {unknown} value */
const isEvents = (value) => Array.isArray(value) && value.every((each) => fits(each, TOLD));
/** @type {Record<string, (value: any) => boolean>} */
const TOLD = { channel: isText, id: (id) => ID.test(id), after: (id) => ID.test(id), name: isText, data: isText };

/** What tabs say to each other. @type {Record<string, typeof TOLD>} */
const MESSAGES = {
  join: { tab: isText, term: Number.isFinite, channels: isTexts, tags: isTags, since: isIds, claims: isIds },
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
export function isMessage(data) {
  return Object.hasOwn(MESSAGES, data?.type) && fits(data, MESSAGES[data.type]);
}
