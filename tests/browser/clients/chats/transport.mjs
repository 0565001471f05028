// Where the chats of the app are, for the AI SDK. It reconnects at `${api}/${id}/stream` by itself.
import { DefaultChatTransport } from "ai";

export const transportOf = (origin, options) =>
  new DefaultChatTransport({
    api: `${origin}/api/chat`,
    prepareSendMessagesRequest: ({ api, id, messages }) => ({
      api: `${api}/${id}`,
      body: { message: messages.at(-1) },
    }),
    ...options,
  });
