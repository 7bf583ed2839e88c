// @durable-streams/server: in memory, or in the files of a folder. It ends with its standard input.
import { DurableStreamTestServer } from "@durable-streams/server";

const [port, dataDir] = process.argv.slice(2);
console.log = () => {}; // it tells of each recovery
await new DurableStreamTestServer({ port: Number(port), host: "127.0.0.1", dataDir }).start();
process.stdin.resume().on("end", () => process.exit(0));
