// @durable-streams/client: streams that are made, written, read and closed; readers and producers that stay.
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client";
import { drive } from "../node/drive.mjs";
import { repeating } from "./repeating.mjs";
import { tail } from "./tail.mjs";

const readers = {};
const producers = {};

// A fetch that notes what it was asked and what came: [method, live, status], status 0 where nothing came.
const noting = (requests) => async (target, options) => {
  const live = new URL(target).searchParams.get("live");
  try {
    const response = await fetch(target, options);
    requests.push([options?.method ?? "GET", live, response.status]);
    return response;
  } catch (error) {
    requests.push([options?.method ?? "GET", live, 0]);
    throw error;
  }
};

const bytes = (given) => Uint8Array.from(atob(given), (each) => each.charCodeAt(0));
const base64 = (found) => btoa(String.fromCharCode(...found));
const body = ({ text, binary }) => (binary === undefined ? text : bytes(binary));
const failure = (error) => ({ name: error.name, code: error.code, status: error.status, text: String(error) });

async function attempt(action) {
  try {
    return { value: (await action()) ?? null };
  } catch (error) {
    return { failure: failure(error) };
  }
}

const note = {
  json: (shown) => ({ items }) => shown.items.push(...items),
  text: (shown) => ({ text }) => text && shown.items.push(text),
  bytes: (shown) => ({ data }) => data.length && shown.items.push(base64(data)),
};
const subscribe = { json: "subscribeJson", text: "subscribeText", bytes: "subscribeBytes" };

async function follow({ reader, url, kind, live, offset }) {
  const shown = (readers[reader] = { items: [], requests: [], offset, closed: false, error: null });
  shown.session = await stream({ url, live, offset, fetch: noting(shown.requests), sseResilience: { logWarnings: false } });
  shown.session[subscribe[kind]]((batch) => {
    note[kind](shown)(batch);
    // What a reader keeps for the next time; the session's own offset may be that of a batch not yet handed out.
    shown.offset = batch.offset;
  });
  shown.session.closed.then(
    () => (shown.closed = true),
    (error) => (shown.error = failure(error)),
  );
}

drive({
  async create({ url, contentType, text, ...options }) {
    return attempt(async () => void (await DurableStream.create({ url, contentType, body: text, ...options })));
  },
  async append({ url, contentType, requests: _, ...data }) {
    const requests = [];
    const handle = new DurableStream({ url, contentType, fetch: noting(requests) });
    return { ...(await attempt(() => handle.append(body(data)))), requests };
  },
  async appendAll({ url, contentType, texts }) {
    const requests = [];
    const handle = new DurableStream({ url, contentType, fetch: noting(requests) });
    await Promise.all(texts.map((text) => handle.append(text)));
    return requests.length;
  },
  close: ({ url, contentType, text }) => attempt(() => new DurableStream({ url, contentType }).close({ body: text })),
  head: ({ url }) => attempt(() => DurableStream.head({ url })),
  delete: ({ url }) => attempt(() => DurableStream.delete({ url })),
  async read({ url, kind, offset }) {
    return attempt(async () => {
      const session = await stream({ url, live: false, offset });
      const found = await { json: () => session.json(), text: () => session.text(), bytes: () => session.body() }[kind]();
      return { items: kind === "bytes" ? base64(found) : found, offset: session.offset, closed: session.streamClosed };
    });
  },
  follow,
  tail({ reader, url, live }) {
    const shown = (readers[reader] = { items: [], requests: [], closed: false, error: null, session: {} });
    const handle = (item) => {
      if (item.fail) throw new TypeError("the handler's own");
      shown.items.push(item);
    };
    tail(url, handle, { live, fetch: noting(shown.requests) }).then(
      () => (shown.closed = true),
      (error) => (shown.error = failure(error)),
    );
  },
  produce({ producer, url, contentType, id, repeat = false, ...options }) {
    const shown = (producers[producer] = { errors: [], requests: [] });
    const fetch = noting(shown.requests);
    shown.producer = new IdempotentProducer(new DurableStream({ url, contentType }), id, {
      fetch: repeat ? repeating(fetch) : fetch,
      onError: (error) => shown.errors.push({ ...failure(error), currentEpoch: error.currentEpoch }),
      ...options,
    });
  },
  // One batch, and so one request, for each list of texts.
  send: ({ producer, batches }) =>
    attempt(async () => {
      for (const texts of batches) {
        for (const text of texts) producers[producer].producer.append(text);
        await producers[producer].producer.flush();
      }
    }),
  // As many requests at once as the producer will have under way.
  pipeline: ({ producer, texts }) =>
    attempt(async () => {
      for (const text of texts) producers[producer].producer.append(text);
      await producers[producer].producer.flush();
    }),
  finish: ({ producer, text }) => attempt(() => producers[producer].producer.close(text)),
  state({ reader, producer }) {
    if (producer !== undefined) {
      const { errors, requests, producer: { epoch, nextSeq } } = producers[producer];
      return { errors, requests, epoch, nextSeq };
    }
    const { session, ...state } = readers[reader];
    return { ...state, streamClosed: session.streamClosed };
  },
});
