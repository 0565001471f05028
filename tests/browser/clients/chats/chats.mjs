// npm "ai", Vercel's AI SDK: chats as pages have them, without React. Commands come as lines on stdin.
import { createInterface } from "node:readline";
import { AbstractChat, readUIMessageStream } from "ai";
import { transportOf } from "./transport.mjs";

/** What useChat keeps in React's state. */
class State {
  status = "ready";
  error = undefined;
  constructor(messages) {
    this.messages = messages;
  }
  pushMessage = (message) => this.messages.push(message);
  popMessage = () => this.messages.pop();
  replaceMessage = (index, message) => (this.messages[index] = message);
  snapshot = (thing) => structuredClone(thing);
}

class Chat extends AbstractChat {}

const pages = [];

const commands = {
  /** Open a chat with these messages, as a page does that has loaded; return its number. */
  open(origin, id, messages) {
    const answers = []; // status and worker of each
    const fetchAndNote = async (...request) => {
      const response = await fetch(...request);
      answers.push([response.status, response.headers.get("x-worker")]);
      return response;
    };
    const transport = transportOf(origin, { fetch: fetchAndNote });
    const chat = new Chat({ id, transport, state: new State(messages) });
    return pages.push({ chat, transport, answers }) - 1;
  },
  send: (number, text) => void pages[number].chat.sendMessage({ text }),
  resume: (number) => void pages[number].chat.resumeStream(),
  /** Abort the request, as a page does that is closed. */
  leave: (number) => pages[number].chat.stop(),
  look(number) {
    const { chat, answers } = pages[number];
    return { status: chat.status, error: chat.error?.message ?? null, messages: chat.messages, answers };
  },
  /** Read an answer by the transport alone; null where there is nothing to resume. */
  async read(number) {
    const { chat, transport } = pages[number];
    const stream = await transport.reconnectToStream({ chatId: chat.id });
    let last = null;
    if (stream) for await (const message of readUIMessageStream({ stream })) last = message;
    return last;
  },
};

async function serve() {
  for await (const line of createInterface({ input: process.stdin })) {
    const [number, name, ...values] = JSON.parse(line);
    Promise.resolve(commands[name](...values)).then((result) => console.log(JSON.stringify([number, result ?? null])));
  }
  process.exit();
}

serve();
