// What asks each server the same, over plain sockets: a client that costs little hides little. It reads commands as
// lines of JSON and answers each with a line. Every reply is checked, and what was written is read back.
import { strict as assert } from "node:assert";
import { connect } from "node:net";
import { createInterface } from "node:readline";

const HEAD_END = Buffer.from("\r\n\r\n");
const LINE_END = Buffer.from("\r\n");
const PADDING = "a few words, as many as make a hundred bytes of it all, with the braces and names and so on";

const messageOf = (number) => `{"n":${number},"text":"${PADDING}"}`;

class Connection {
  #received = Buffer.alloc(0);
  #waiting = null;

  static open(port) {
    const connection = new Connection();
    return new Promise((resolve, reject) => {
      connection.socket = connect({ port, host: "127.0.0.1", noDelay: true }, () => resolve(connection));
      connection.socket.on("error", reject);
      connection.socket.on("data", (data) => connection.heard(data));
      connection.socket.on("close", () => connection.#waiting?.reject(new Error("the server closed the connection")));
    });
  }

  heard(data) {
    this.#received = this.#received.length ? Buffer.concat([this.#received, data]) : data;
    const reply = this.#waiting && this.#parsed();
    if (reply) {
      const { resolve } = this.#waiting;
      this.#waiting = null;
      resolve(reply);
    }
  }

  request(method, path, body = "", extra = "") {
    const length = body && `Content-Length: ${Buffer.byteLength(body)}\r\n`;
    this.socket.write(`${method} ${path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n${extra}${length}\r\n${body}`);
    return new Promise((resolve, reject) => (this.#waiting = { resolve, reject }));
  }

  // The reply, once it is all there.
  #parsed() {
    const end = this.#received.indexOf(HEAD_END);
    if (end < 0) return null;
    const head = this.#received.latin1Slice(0, end).toLowerCase();
    const status = Number(head.slice(9, 12));
    const found = this.#body(head, status, end + 4);
    if (found === null) return null;
    this.#received = this.#received.subarray(found.next);
    return { status, head, body: found.body };
  }

  #body(head, status, start) {
    if (status === 204) return { body: "", next: start };
    const length = field(head, "content-length");
    if (length !== undefined) {
      const next = start + Number(length);
      return this.#received.length < next ? null : { body: this.#received.utf8Slice(start, next), next };
    }
    assert.equal(field(head, "transfer-encoding"), "chunked", head);
    const parts = [];
    for (let at = start; ; ) {
      const line = this.#received.indexOf(LINE_END, at);
      if (line < 0) return null;
      const size = parseInt(this.#received.latin1Slice(at, line), 16);
      at = line + 2 + size + 2;
      if (this.#received.length < at) return null;
      if (size === 0) return { body: Buffer.concat(parts).toString(), next: at };
      parts.push(this.#received.subarray(line + 2, at - 2));
    }
  }

  close() {
    this.#waiting = null;
    this.socket.destroy();
  }
}

function field(head, name) {
  const start = head.indexOf(`\r\n${name}:`);
  if (start < 0) return undefined;
  const end = head.indexOf("\r\n", start + 2);
  return head.slice(start + name.length + 3, end < 0 ? undefined : end).trim();
}

async function create(connection, path) {
  const { status, head } = await connection.request("PUT", path);
  assert.equal(status, 201, head);
}

async function append(connection, path, body) {
  const { status, head } = await connection.request("POST", path, body);
  assert(status === 204 || status === 200, head);
  const offset = field(head, "stream-next-offset");
  assert(offset, head);
  return offset;
}

// The bodies of all pages, and nothing computed from them: that would be the client's time.
async function pages(connection, path) {
  const bodies = [];
  for (let offset = "-1"; ; ) {
    const { status, head, body } = await connection.request("GET", `${path}?offset=${offset}`);
    assert.equal(status, 200, head);
    bodies.push(body);
    if (field(head, "stream-up-to-date") === "true") return bodies;
    const next = field(head, "stream-next-offset");
    assert.notEqual(next, offset, "a page that leads nowhere");
    offset = next;
  }
}

const numbersOf = (bodies) => bodies.flatMap((body) => JSON.parse(body).map(({ n }) => n));

// --- what is measured

async function appendFor(connection, path, milliseconds, own) {
  const end = performance.now() + milliseconds;
  const numbers = [];
  let last = "";
  while (performance.now() < end) {
    const number = own();
    const offset = await append(connection, path, messageOf(number));
    assert(offset > last, `${offset} after ${last}`);
    last = offset;
    numbers.push(number);
  }
  return numbers;
}

// So many connections, each with one request at a time, on so many streams.
async function appends({ port, path, connections, streams, milliseconds, warmup }) {
  const opened = await Promise.all(Array.from({ length: connections }, () => Connection.open(port)));
  const names = Array.from({ length: streams }, (_, number) => `${path}-${number}`);
  for (const name of names) await create(opened[0], name);
  let count = 0;
  const run = (duration) =>
    Promise.all(opened.map((each, index) => appendFor(each, names[index % streams], duration, () => count++)));
  const first = await run(warmup);
  const begin = performance.now();
  const second = await run(milliseconds);
  const seconds = (performance.now() - begin) / 1000;
  for (const [stream, name] of names.entries()) {
    const found = numbersOf(await pages(opened[0], name));
    const sent = opened.map((_, index) => index).filter((index) => index % streams === stream);
    // Each connection's messages, whole and in their order.
    const order = new Map(found.map((number, place) => [number, place]));
    const written = sent.map((index) => [...first[index], ...second[index]]);
    assert.equal(found.length, written.flat().length, "messages read back");
    assert.equal(order.size, found.length, "a message twice");
    for (const numbers of written) {
      const places = numbers.map((number) => order.get(number));
      assert(places.every((place, at) => place !== undefined && (at === 0 || place > places[at - 1])), "lost or out of order");
    }
  }
  opened.forEach((each) => each.close());
  return { perSecond: second.flat().length / seconds, count: second.flat().length };
}

async function catchUp({ port, path, messages, times }) {
  const connection = await Connection.open(port);
  await create(connection, path);
  for (let begin = 0; begin < messages; begin += 100) {
    const numbers = Array.from({ length: Math.min(100, messages - begin) }, (_, number) => begin + number);
    await append(connection, path, `[${numbers.map(messageOf).join(",")}]`);
  }
  const took = [];
  for (let time = 0; time < times; time++) {
    const begin = performance.now();
    const bodies = await pages(connection, path);
    took.push(performance.now() - begin);
    const numbers = numbersOf(bodies);
    assert(numbers.length === messages && numbers.every((number, at) => number === at), "not what was written");
  }
  connection.close();
  return { took };
}

// One message at a time: from the moment that it is sent until another connection has its event.
async function latency({ port, path, events, warmup }) {
  const [writer, reader] = await Promise.all([Connection.open(port), Connection.open(port)]);
  await create(writer, path);
  const heard = [];
  let open;
  let came;
  let rest = "";
  reader.heard = (data) => {
    rest += data.latin1Slice();
    open?.();
    const numbers = [...rest.matchAll(/"n":(\d+),[^}]*\}/g)];
    if (!numbers.length) return;
    heard.push(...numbers.map(([, number]) => Number(number)));
    rest = rest.slice(numbers.at(-1).index + numbers.at(-1)[0].length);
    came?.(performance.now());
  };
  const opened = new Promise((resolve) => (open = resolve));
  reader.request("GET", `${path}?offset=-1&live=sse`, "", "Accept: text/event-stream\r\n").catch(() => {});
  await opened;
  const took = [];
  for (let number = 0; number < warmup + events; number++) {
    const arrival = new Promise((resolve) => (came = resolve));
    const begin = performance.now();
    const stored = append(writer, path, messageOf(number));
    took.push((await arrival) - begin);
    await stored;
  }
  assert(heard.length === took.length && heard.every((number, at) => number === at), "events lost, twice or out of order");
  [writer, reader].forEach((each) => each.close());
  return { took: took.slice(warmup) };
}

const commands = { appends, catchUp, latency };
for await (const line of createInterface({ input: process.stdin })) {
  const { name, ...given } = JSON.parse(line);
  let reply;
  try {
    reply = { answer: await commands[name](given) };
  } catch (error) {
    reply = { error: String(error?.stack ?? error) };
  }
  process.stdout.write(JSON.stringify(reply) + "\n");
}
process.exit(0);
