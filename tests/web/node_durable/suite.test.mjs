// The protocol's own suite, against the server that the environment names.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

runConformanceTests({ baseUrl: process.env.DURABLE_STREAMS_URL, subscriptions: false, longPollTimeoutMs: 500 })
