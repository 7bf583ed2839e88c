// Headless Chromium, driven over its DevTools protocol: tabs that are opened, reloaded, asked, and cut from the network.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { buildSync } from "esbuild";
import { drive } from "./drive.mjs";

const bundle = join(import.meta.dirname, "build", "page.js");
buildSync({
  entryPoints: [join(import.meta.dirname, "page.mjs")],
  bundle: true,
  format: "esm",
  outfile: bundle,
  define: { "process.env.NODE_ENV": '"production"' },
});

const profile = mkdtempSync(join(tmpdir(), "streamhub-chromium-"));
const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"];
const chromium = spawn(process.env.CHROMIUM, [...flags, `--user-data-dir=${profile}`, "about:blank"], {
  stdio: ["ignore", "ignore", "pipe"],
});
process.on("exit", () => {
  chromium.kill("SIGKILL");
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
});
const address = await new Promise((resolve, reject) => {
  createInterface({ input: chromium.stderr }).on("line", (line) => {
    const match = /DevTools listening on (ws:\S+)/.exec(line);
    if (match) resolve(match[1]);
  });
  chromium.on("exit", () => reject(new Error("chromium did not start")));
});
const socket = new WebSocket(address);
await new Promise((resolve) => (socket.onopen = resolve));
const waiting = new Map();
let last = 0;
socket.onmessage = ({ data }) => {
  const { id, result, error } = JSON.parse(data);
  if (!waiting.has(id)) return;
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  error ? reject(new Error(error.message)) : resolve(result);
};
const command = (method, params = {}, sessionId) =>
  new Promise((resolve, reject) => {
    waiting.set(++last, { resolve, reject });
    socket.send(JSON.stringify({ id: last, method, params, sessionId }));
  });

const tabs = {};

async function evaluate(tab, expression) {
  const params = { expression, awaitPromise: true, returnByValue: true };
  const { result, exceptionDetails } = await command("Runtime.evaluate", params, tabs[tab]);
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
}

drive({
  async open({ tab, url }) {
    const { targetId } = await command("Target.createTarget", { url });
    ({ sessionId: tabs[tab] } = await command("Target.attachToTarget", { targetId, flatten: true }));
    await command("Network.enable", {}, tabs[tab]);
  },
  async reload({ tab }) {
    await evaluate(tab, "delete window.state");
    await command("Page.reload", {}, tabs[tab]);
  },
  navigate: ({ tab, url }) => evaluate(tab, `delete window.state; location.href = ${JSON.stringify(url)}; null`),
  network: ({ tab, offline }) =>
    command(
      "Network.emulateNetworkConditions",
      { offline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 },
      tabs[tab],
    ).then(() => null),
  run: ({ tab, expression }) => evaluate(tab, expression),
  // A page that is being loaded has no state yet.
  state: ({ tab, expression = "window.state()" }) =>
    evaluate(tab, `window.state ? ${expression} : { status: null, answers: [], texts: [], named: [], errors: [] }`),
});
