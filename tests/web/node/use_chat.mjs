// useChat of @ai-sdk/react in jsdom: a page that can be mounted, reloaded, and asked what it shows.
import { JSDOM } from "jsdom";
import { drive } from "./drive.mjs";

const { window } = new JSDOM("<!doctype html><div id=root></div>", { pretendToBeVisual: true });
Object.assign(globalThis, { window, document: window.document, IS_REACT_ACT_ENVIRONMENT: false });
const React = await import("react");
const { createRoot } = await import("react-dom/client");
const { useChat } = await import("@ai-sdk/react");
const { DefaultChatTransport } = await import("ai");
const { tailFetch } = await import(process.env.TAIL_FETCH);

const pages = {};

function mount({ page, api, id, resume = false, tail = false, messages = [] }) {
  const shown = (pages[page] = { statuses: [], errors: [], finished: [], requests: [] });
  const counted = (fetch) => async (url, options) => {
    const response = await fetch(url, options);
    shown.requests.push([options?.method ?? "GET", response.status, new Headers(options?.headers).get("last-event-id")]);
    return response;
  };
  // The wrapper is the page's: a reload would make a new one.
  const transport = new DefaultChatTransport(
    tail ? { api, fetch: tailFetch(counted(fetch)), resumeStreamIsReplay: false } : { api, fetch: counted(fetch) },
  );
  function Page() {
    const chat = useChat({
      id,
      transport,
      resume,
      messages,
      onError: (error) => shown.errors.push(String(error)),
      onFinish: ({ isAbort, isDisconnect, isError }) => shown.finished.push({ isAbort, isDisconnect, isError }),
    });
    shown.chat = chat;
    if (shown.statuses.at(-1) !== chat.status) shown.statuses.push(chat.status);
    return null;
  }
  shown.root = createRoot(window.document.createElement("div"));
  shown.root.render(React.createElement(Page));
}

const textOf = (message) =>
  message.parts.filter((part) => part.type === "text").map((part) => part.text).join("");

drive({
  mount,
  unmount({ page }) {
    pages[page].root.unmount();
    delete pages[page];
  },
  send({ page, text, id }) {
    // Not awaited: it lasts as long as the answer.
    pages[page].chat.sendMessage(id ? { id, role: "user", parts: [{ type: "text", text }] } : { text });
  },
  resume({ page }) {
    pages[page].chat.resumeStream();
  },
  regenerate({ page }) {
    pages[page].chat.regenerate();
  },
  state({ page }) {
    const { chat, statuses, errors, finished, requests } = pages[page];
    return {
      status: chat?.status,
      messages: (chat?.messages ?? []).map((each) => ({
        id: each.id,
        role: each.role,
        text: textOf(each),
        states: each.parts.map((part) => part.state),
      })),
      statuses,
      errors,
      finished,
      requests,
    };
  },
});
