// Resumes an answer of useChat after the last chunk that arrived, in place of replaying it from its start:
//
//   new DefaultChatTransport({ api, fetch: tailFetch(), resumeStreamIsReplay: false })
//
// It remembers the SSE id of the last whole event, and sends it with the GET that resumes. A connection that broke is
// reported as useChat expects it: only then it keeps what it was building.
export function tailFetch(send = globalThis.fetch) {
  let lastId = "";
  return async (url, options = {}) => {
    const headers = new Headers(options.headers);
    if ((options.method ?? "GET") !== "GET") lastId = "";
    else if (lastId) headers.set("last-event-id", lastId);
    const response = await send(url, { ...options, headers });
    if (!response.ok || !response.body) return response;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    const events = new ReadableStream({
      async pull(controller) {
        try {
          for (let end = -1; end < 0; end = waiting.lastIndexOf("\n\n")) {
            const { done, value } = await reader.read();
            if (done) return controller.close();
            waiting += value;
          }
        } catch (error) {
          throw error?.name === "AbortError" ? error : new TypeError("network error", { cause: error });
        }
        const whole = waiting.slice(0, waiting.lastIndexOf("\n\n") + 2);
        waiting = waiting.slice(whole.length);
        for (const [, id] of whole.matchAll(/^id: ?(.*)$/gm)) lastId = id;
        controller.enqueue(new TextEncoder().encode(whole));
      },
      cancel: (reason) => reader.cancel(reason),
    });
    return new Response(events, response);
  };
}
