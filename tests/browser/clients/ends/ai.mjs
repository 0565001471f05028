// npm "ai", Vercel's AI SDK: a chat, as useChat keeps one, without React.
import { AbstractChat, DefaultChatTransport } from "ai";
import { serve } from "./serve.mjs";

/** What useChat keeps in React's state. */
class State {
  status = "ready";
  error = undefined;
  messages = [];
  pushMessage = (message) => this.messages.push(message);
  popMessage = () => this.messages.pop();
  replaceMessage = (index, message) => (this.messages[index] = message);
  snapshot = (thing) => structuredClone(thing);
}

class Chat extends AbstractChat {}

serve((url, onEvent, onOver) => {
  const { origin, searchParams } = new URL(url);
  const { user: id, text } = Object.fromEntries(searchParams);
  const state = new State();
  const chat = new Chat({ id, state, transport: new DefaultChatTransport({ api: `${origin}/api/chat` }) });
  const words = () => state.messages[1]?.parts.map((part) => part.text ?? "").join("") ?? "";
  const watch = setInterval(() => onEvent("words", chat.status, words()), 20);
  chat.sendMessage({ text }).then(() => {
    clearInterval(watch);
    onEvent("words", chat.status, words());
    if (chat.error) onEvent("error", chat.error.constructor.name, chat.error.message);
    else onOver();
  });
});
