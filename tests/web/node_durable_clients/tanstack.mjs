// ChatClient of @tanstack/ai-client over @durable-streams/tanstack-ai-transport, with both halves of the transport.
import { ChatClient } from "@tanstack/ai-client";
import {
  durableStreamConnection,
  ensureDurableChatSessionStream,
  materializeSnapshotFromDurableStream,
  toDurableChatSessionResponse,
} from "@durable-streams/tanstack-ai-transport";
import { drive } from "../node/drive.mjs";
import { textOf, wordsOf } from "./words.mjs";

const clients = {};

async function* runOf(prompt, messageId) {
  const ids = { threadId: "t", runId: `run-${messageId}` };
  yield { type: "RUN_STARTED", ...ids };
  yield { type: "TEXT_MESSAGE_START", messageId, role: "assistant" };
  for await (const delta of wordsOf(prompt)) yield { type: "TEXT_MESSAGE_CONTENT", messageId, delta };
  yield { type: "TEXT_MESSAGE_END", messageId };
  yield { type: "RUN_FINISHED", ...ids };
}

// The chat's POST route, called without a server of its own.
const route = (writeUrl) => async (_, { body }) => {
  const message = JSON.parse(body).messages.at(-1);
  const prompt = textOf(message.parts, ({ content }) => content);
  return toDurableChatSessionResponse({
    stream: { writeUrl },
    newMessages: [message],
    responseStream: runOf(prompt, `answer-${message.id}`),
  });
};

const shape = ({ role, parts }) => ({ role, text: textOf(parts, ({ content }) => content) });

drive({
  // A page that reads before anybody has written is told 404: the route that serves it makes the stream.
  async make({ url }) {
    await ensureDurableChatSessionStream({ writeUrl: url });
  },
  open({ client, writeUrl, readUrl, offset }) {
    const errors = [];
    const connection = durableStreamConnection({
      sendUrl: "http://chat/api",
      readUrl,
      initialOffset: offset,
      fetchClient: route(writeUrl),
    });
    const chat = new ChatClient({ connection, onError: (error) => errors.push(String(error)) });
    clients[client] = { chat, errors };
  },
  subscribe({ client }) {
    clients[client].chat.subscribe();
  },
  unsubscribe({ client }) {
    clients[client].chat.unsubscribe();
  },
  send({ client, text }) {
    // Not awaited: it lasts as long as the answer.
    clients[client].chat.sendMessage(text);
  },
  async snapshot({ url }) {
    const { messages, offset } = await materializeSnapshotFromDurableStream({ readUrl: url });
    return { messages: messages.map(shape), offset };
  },
  state({ client }) {
    const { chat, errors } = clients[client];
    const connection = chat.getConnectionStatus();
    return { status: chat.getStatus(), connection, messages: chat.getMessages().map(shape), errors };
  },
});
