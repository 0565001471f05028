/**
 * The messages that tabs send each other through a BroadcastChannel.
 *
 * @module
 */

import { ID } from "./positions.js";

/** @typedef {import("./sse-emitters.js").Refusal} Refusal */
/** @typedef {{ channel: string, id: string, after: string, name: string, data: string }} EventMessage one event. */
/** @typedef {[channel: string, id: string][]} Ids */
/** @typedef {[channel: string, tag: string][]} Tags */
/**
 * @typedef {{ type: "join", tab: string, term: number, channels: string[], tags: Tags, since: Ids, claims: Ids }} Join
 */
/** @typedef {{ type: "leave", tab: string }} Leave */
/** @typedef {{ type: "hello", term: number }} Hello */
/** @typedef {{ type: "at", term: number, to?: string, heads: Ids, cursors: Ids, live: string[] }} PositionMessage */
/** @typedef {{ type: "events", term: number, events: EventMessage[] }} Events */
/** @typedef {{ type: "gap", term: number, at: Ids, newest: Ids }} GapMessage */
/** @typedef {{ type: "refused", term: number } & Refusal} RefusedMessage */
/** @typedef {{ type: "ended", term: number, at: Ids }} EndMessage the channels with their last ids. */
/** @typedef {Hello | PositionMessage | Events | GapMessage | RefusedMessage | EndMessage} LeaderMessage */

/** @param {unknown} value */
const isText = (value) => typeof value === "string";
/** @param {unknown} value */
const isTexts = (value) => Array.isArray(value) && value.every(isText);
/** @param {unknown} value */
const isIds = (value) => Array.isArray(value) && value.every((pair) => isTexts(pair) && ID.test(pair[1]));
/** @param {unknown} value */
const isTags = (value) => Array.isArray(value) && value.every((pair) => isTexts(pair) && pair.length === 2);
/** @param {unknown} value */
const isEvents = (value) => Array.isArray(value) && value.every((each) => fits(each, EVENT));
/** @type {Record<string, (value: any) => boolean>} */
const EVENT = { channel: isText, id: (id) => ID.test(id), after: (id) => ID.test(id), name: isText, data: isText };

/** The fields of each message. @type {Record<string, typeof EVENT>} */
const MESSAGES = {
  join: { tab: isText, term: Number.isFinite, channels: isTexts, tags: isTags, since: isIds, claims: isIds },
  leave: { tab: isText },
  hello: { term: Number.isFinite },
  at: { term: Number.isFinite, heads: isIds, cursors: isIds, live: isTexts },
  events: { term: Number.isFinite, events: isEvents },
  gap: { term: Number.isFinite, at: isIds, newest: isIds },
  refused: { term: Number.isFinite, channel: isText, status: Number.isFinite, message: isText },
  ended: { term: Number.isFinite, at: isIds },
};

/** Return whether a value has all fields of a shape. @param {any} value @param {typeof EVENT} shape */
function fits(value, shape) {
  return !!value && Object.entries(shape).every(([name, check]) => check(value[name]));
}

/**
 * Return whether this is a message of a tab: any script of this origin can send something else.
 *
 * @param {any} data
 * @returns {data is Join | Leave | LeaderMessage}
 */
export function isMessage(data) {
  return Object.hasOwn(MESSAGES, data?.type) && fits(data, MESSAGES[data.type]);
}
