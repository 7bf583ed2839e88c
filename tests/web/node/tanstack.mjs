// ChatClient of @tanstack/ai-client over the plain event stream routes.
import { ChatClient, fetchServerSentEvents } from "@tanstack/ai-client";
import { drive } from "./drive.mjs";

const clients = {};

drive({
  open({ client, url }) {
    const shown = (clients[client] = { errors: [], requests: [] });
    const counted = async (target, options) => {
      const response = await fetch(target, options);
      const headers = new Headers(options?.headers);
      shown.requests.push([options?.method ?? "GET", response.status, headers.get("last-event-id")]);
      return response;
    };
    shown.chat = new ChatClient({
      connection: fetchServerSentEvents(url, { fetchClient: counted }),
      onError: (error) => shown.errors.push(String(error)),
    });
  },
  send({ client, text }) {
    clients[client].chat.sendMessage(text);
  },
  state({ client }) {
    const { chat, errors, requests } = clients[client];
    const messages = chat.getMessages().map(({ role, parts }) => ({
      role,
      text: parts.filter((part) => part.type === "text").map((part) => part.content).join(""),
    }));
    return { status: chat.getStatus(), messages, errors, requests };
  },
});
