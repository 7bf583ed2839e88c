// A page with useChat, and with native EventSources that are opened on demand.
import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";
import React from "react";
import { createRoot } from "react-dom/client";
import { tailFetch } from "../../../streamhub/web/aisdk/tail_fetch.mjs";

const asked = new URLSearchParams(location.search);
const question = asked.get("question");
const messages = question ? [{ id: "m1", role: "user", parts: [{ type: "text", text: question }] }] : [];
const transport = new DefaultChatTransport(
  asked.has("tail") ? { fetch: tailFetch((...given) => fetch(...given)), resumeStreamIsReplay: false } : {},
);
const errors = [];
let chat;

function Page() {
  chat = useChat({
    id: asked.get("chat"),
    transport,
    messages,
    resume: asked.has("resume"),
    onError: (error) => errors.push(String(error)),
  });
  return React.createElement(
    "ul",
    null,
    chat.messages.map(({ id, role, parts }) =>
      React.createElement("li", { key: id, className: role }, parts.map((part) => part.text ?? "").join("")),
    ),
  );
}

createRoot(document.getElementById("root")).render(React.createElement(Page));

window.send = (text) => void chat.sendMessage({ id: "m1", role: "user", parts: [{ type: "text", text }] });
window.resume = () => void chat.resumeStream();
window.stop = async () => {
  const headers = { "content-type": "application/json" };
  const stopped = await fetch(`/api/chat/${chat.id}/stop`, { method: "POST", headers, body: "{}" });
  return (await stopped.json()).state;
};
window.state = () => ({
  status: chat?.status ?? null,
  errors,
  answers: [...document.querySelectorAll("li.assistant")].map((each) => each.textContent),
});

const sources = {};
window.listen = (name, url) => {
  const seen = (sources[name] = { texts: [], named: [], opened: 0, source: new EventSource(url) });
  seen.source.onopen = () => seen.opened++;
  seen.source.onmessage = ({ data }) => seen.texts.push(data);
  for (const kind of ["reset", "abandoned", "end", "gone"]) {
    seen.source.addEventListener(kind, ({ data }) => seen.named.push([kind, JSON.parse(data)]));
  }
};
window.heard = (name) => {
  const { source, ...seen } = sources[name];
  return { ...seen, readyState: source.readyState };
};
