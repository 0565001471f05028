// Follows the stream of the URL given with the npm package "eventsource".
import { EventSource } from "eventsource";

setInterval(() => {}, 2 ** 30); // a stream that waits to come back does not keep node alive

const stream = new EventSource(process.argv[2]);
for (const name of ["message", "gap"])
  stream.addEventListener(name, (event) => console.log(`${event.type}\t${event.lastEventId}\t${event.data}`));
