// The AI SDK's chat over @durable-streams/aisdk-transport, with both halves of the transport: the chat route writes
// to one address and has the page read at another.
import { AbstractChat } from "ai";
import { createDurableChatTransport, toDurableStreamResponse } from "@durable-streams/aisdk-transport";
import { drive } from "../node/drive.mjs";
import { textOf, wordsOf } from "./words.mjs";

const pages = {};
const unhandled = [];
// Where nothing hears of it, a rejection ends the process; in a browser it is a line of the console.
process.on("unhandledRejection", (error) => unhandled.push(String(error)));
const active = {};

async function* messageOf(prompt, messageId) {
  yield { type: "start", messageId };
  yield { type: "text-start", id: "t" };
  for await (const delta of wordsOf(prompt)) yield { type: "text-delta", id: "t", delta };
  yield { type: "text-end", id: "t" };
  yield { type: "finish" };
}

// The two routes of a chat, called without a server of their own.
const routes = ({ writeUrl, readUrl }) => async (target, options) => {
  if (options.method === "GET") {
    const chat = target.split("/").at(-2);
    return active[chat]
      ? Response.json({ streamUrl: active[chat] }, { headers: { Location: active[chat] } })
      : new Response(null, { status: 204 });
  }
  const { id, messages } = JSON.parse(options.body);
  const question = messages.at(-1);
  const path = `chats/${id}/${question.id}`;
  active[id] = `${readUrl}/${path}`;
  return toDurableStreamResponse({
    source: messageOf(question.parts[0].text, `answer-${question.id}`),
    stream: { writeUrl: `${writeUrl}/${path}`, readUrl: active[id] },
  });
};

class Chat extends AbstractChat {
  constructor({ messages, ...options }) {
    super({
      ...options,
      state: {
        status: "ready",
        error: undefined,
        messages,
        pushMessage: (message) => (this.state.messages = [...this.state.messages, message]),
        popMessage: () => (this.state.messages = this.state.messages.slice(0, -1)),
        replaceMessage: (index, message) => (this.state.messages = this.state.messages.with(index, message)),
        snapshot: structuredClone,
      },
    });
  }
}

drive({
  open({ page, id, messages = [], ...urls }) {
    const errors = [];
    const transport = createDurableChatTransport({ api: "http://chat/api", fetchClient: routes(urls) });
    const chat = new Chat({ id, messages, transport, onError: (error) => errors.push(String(error)) });
    pages[page] = { chat, errors };
  },
  send({ page, text, id }) {
    // Not awaited: it lasts as long as the answer.
    pages[page].chat.sendMessage({ id, role: "user", parts: [{ type: "text", text }] });
  },
  resume({ page }) {
    pages[page].chat.resumeStream();
  },
  state({ page }) {
    const { chat, errors } = pages[page];
    const messages = chat.messages.map(({ id, role, parts }) => ({ id, role, text: textOf(parts, ({ text }) => text) }));
    return { status: chat.status, messages, errors, unhandled };
  },
});
