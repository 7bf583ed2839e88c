// Reads commands as lines of JSON, runs them, and answers each with a line: {"answer": …} or {"error": …}.
import { createInterface } from "node:readline";

export async function drive(commands) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { name, ...given } = JSON.parse(line);
    let reply;
    try {
      reply = { answer: (await commands[name](given)) ?? null };
    } catch (error) {
      reply = { error: String(error?.stack ?? error) };
    }
    process.stdout.write(JSON.stringify(reply) + "\n");
  }
  process.exit(0);
}
