// React: components that come and go, each with both hooks.
import { StrictMode, useEffect, useState } from "react";
import { flushSync } from "react-dom";
import { createRoot } from "react-dom/client";
import { useChannel, useEvents } from "flask-sse-emitters/react";
import { note, type Wanted } from "./wanted.js";

function Reader({ channels, since, label = "" }: Wanted) {
  useEffect(() => {
    window.mounts += 1;
  }, []);
  const { state, events, error, gaps, clear } = useEvents("/events", channels, {
    limit: 3,
    ...(since && { since }),
    onEvent: (event) => note(`${label} ${event.data}`),
    onReaderChange: () => note("another reader"),
  });
  if (events.some(({ channel }) => !channels.includes(channel))) note("events of another channel");
  const { event } = useChannel("/events", channels, { name: "created" });
  return (
    <section>
      <output>{state}</output>
      <ol>
        {events.map(({ id, data }) => (
          <li key={id}>{data}</li>
        ))}
      </ol>
      <b>{event?.data}</b>
      <i>{gaps}</i>
      <em>{error?.status}</em>
      <button onClick={clear}>Clear</button>
    </section>
  );
}

function Page() {
  const [wanted, show] = useState<Wanted>({ readers: 0, channels: [] });
  window.show = (other) => flushSync(() => show(other)); // effects, too, are run at once
  return Array.from({ length: wanted.readers }, (_, number) => <Reader key={`${number} ${wanted.login}`} {...wanted} />);
}

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
