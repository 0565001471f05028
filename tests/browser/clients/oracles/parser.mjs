// Writes all that the npm package "eventsource-parser" makes of a stream, until it says the end.
import { createParser } from "eventsource-parser";

let lastId = "", isOver = false;

const parser = createParser({
  onId: (id) => (lastId = id),
  onEvent({ event = "message", data }) {
    console.log(JSON.stringify([event, lastId, data]));
    isOver ||= event === "mark" && data === "end";
  },
});

const { body } = await fetch(process.argv[2]);
const utf8 = new TextDecoder();
for await (const piece of body) {
  parser.feed(utf8.decode(piece, { stream: true }));
  if (isOver) break;
}
