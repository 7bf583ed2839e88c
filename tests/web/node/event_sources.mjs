// The package eventsource, and @microsoft/fetch-event-source, reading plain events.
import { JSDOM } from "jsdom";
import { EventSource } from "eventsource";
import { drive } from "./drive.mjs";

const { window } = new JSDOM("<!doctype html>", { pretendToBeVisual: true });
globalThis.document = window.document;
globalThis.window = globalThis;
const { fetchEventSource } = await import("@microsoft/fetch-event-source");

const readers = {};
const NAMES = ["reset", "abandoned", "end", "gone"];

drive({
  eventsource({ reader, url }) {
    const seen = (readers[reader] = { texts: [], named: [], connections: 0, errors: 0 });
    seen.source = new EventSource(url);
    seen.source.onopen = () => seen.connections++;
    seen.source.onerror = () => seen.errors++;
    seen.source.onmessage = ({ data, lastEventId }) => {
      seen.texts.push(data);
      seen.lastId = lastEventId;
    };
    for (const name of NAMES) {
      seen.source.addEventListener(name, ({ data }) => {
        if (name === "reset") seen.texts = [];
        seen.named.push([name, JSON.parse(data)]);
      });
    }
  },
  fetch({ reader, url, method = "GET", headers = {}, body }) {
    const seen = (readers[reader] = { texts: [], named: [], connections: 0, errors: 0, done: false });
    fetchEventSource(url, {
      method,
      headers,
      body,
      openWhenHidden: true,
      fetch: async (...given) => {
        seen.connections++;
        return fetch(...given);
      },
      onmessage({ event, data, id }) {
        // This package calls for the id that primes it, too.
        if (event === "" && data === "") seen.primed = id;
        else if (event === "") seen.texts.push(data), (seen.lastId = id);
        else seen.named.push([event, JSON.parse(data)]);
        if (event === "reset") seen.texts = [];
      },
      onerror() {
        seen.errors++; // returning nothing means: try again, as the package does by default
      },
    }).then(
      () => (seen.done = true),
      (error) => (seen.failed = String(error)),
    );
  },
  state({ reader }) {
    const { source, ...seen } = readers[reader];
    return { ...seen, readyState: source?.readyState };
  },
  close({ reader }) {
    readers[reader].source.close();
  },
});
