// Writes all that the npm package "eventsource" tells, until it is told the end.
import { EventSource } from "eventsource";

const [url, site] = process.argv.slice(2);
const names = await (await fetch(`${site}/names`)).json();
const stream = new EventSource(url);
const note = ({ type, lastEventId, data }) => {
  if (data === undefined) return; // an error of the connection, or its beginning
  console.log(JSON.stringify([type, lastEventId, data]));
  if (type === "mark" && data === "end") stream.close();
};
for (const name of names) stream.addEventListener(name, note);
