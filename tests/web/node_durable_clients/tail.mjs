// The reader that the documents show.
import { stream } from "@durable-streams/client";

// Follow a stream of JSON to its end, whatever breaks on the way. `handle` gets each message once.
export async function tail(url, handle, { live = "sse", offset = "-1", ...options } = {}) {
  let failed = false;
  for (let closed = false; !closed; ) {
    const session = await stream({ ...options, url, live, offset });
    session.subscribeJson(async (batch) => {
      failed = true; // unless each message is handled
      for (const item of batch.items) await handle(item);
      offset = batch.offset; // not session.offset: that may be of a batch that nobody has been given yet
      failed = false;
    });
    const broken = (error) => {
      if (failed || !(error instanceof TypeError)) throw error; // only what the network does
      return new Promise((resolve) => setTimeout(resolve, 500 * Math.random(), false));
    };
    closed = await session.closed.then(() => true, broken);
  }
}
