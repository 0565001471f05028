// Lets a test begin streams with a client: a page by window.follow, a program by lines on its stdin.

/** Begin a stream of the URL, tell of each event (name, id, data), and when the client has given up; return its end. */
export function serve(begin) {
  const streams = [];
  const isPage = typeof window !== "undefined";
  const tell = (number, told) => {
    if (isPage) streams[number].push(told);
    else console.log(JSON.stringify([number, told]));
  };
  const follow = (url) => {
    const number = streams.push([]) - 1;
    begin(url, (...event) => tell(number, event), () => tell(number, "over"));
    return number;
  };
  if (isPage) Object.assign(window, { streams, follow });
  else readLines(follow);
}

async function readLines(follow) {
  const { createInterface } = await import("node:readline");
  for await (const url of createInterface({ input: process.stdin })) follow(url);
  process.exit();
}

/** Tell of all that an EventSource tells. */
export function listen(stream, onEvent, onOver) {
  for (const name of ["message", "gap", "~end"])
    stream.addEventListener(name, ({ type, lastEventId, data }) => onEvent(type, lastEventId, data));
  stream.addEventListener("error", () => stream.readyState === 2 && onOver());
}
