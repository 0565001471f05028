// npm "openai": a completion that is streamed.
import OpenAI from "openai";
import { serve } from "./serve.mjs";

async function ask(url, onEvent) {
  const { origin, searchParams } = new URL(url);
  const { model, user, text } = Object.fromEntries(searchParams);
  const client = new OpenAI({ baseURL: `${origin}/v1`, apiKey: "none", maxRetries: 0 });
  const messages = [{ role: "user", content: text }];
  for await (const { choices } of await client.chat.completions.create({ model, user, messages, stream: true }))
    onEvent("chunk", choices[0].finish_reason ?? "", choices[0].delta.content ?? "");
}

serve((url, onEvent, onOver) => {
  ask(url, onEvent).then(onOver, (error) => onEvent("error", error.constructor.name, error.message));
});
