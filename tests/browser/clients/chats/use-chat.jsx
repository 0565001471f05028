// npm "@ai-sdk/react": a page with one chat, which the title names.
import { useChat } from "@ai-sdk/react";
import { createRoot } from "react-dom/client";
import { transportOf } from "./transport.mjs";

const id = document.title;
const transport = transportOf("");

function Chat({ saved }) {
  const { messages, status, error, sendMessage, stop } = useChat({ id, messages: saved, resume: true, transport });
  const ask = (event) => {
    event.preventDefault();
    sendMessage({ text: event.target.text.value });
  };
  const end = async () => {
    await fetch(`/api/chat/${id}/stop`, { method: "POST" }); // stop() alone only leaves
    await stop();
  };
  return (
    <>
      <output>{status}</output>
      <em>{error?.message}</em>
      {messages.map(({ id, role, parts }) => (
        <p key={id} className={role}>
          {parts.map((part) => part.text ?? "").join("")}
        </p>
      ))}
      <form onSubmit={ask}>
        <input name="text" />
      </form>
      <button onClick={end}>Stop</button>
    </>
  );
}

const saved = await (await fetch(`/api/chat/${id}`)).json();
createRoot(document.getElementById("chat")).render(<Chat saved={saved} />);
