-- Table listener: who wants a datagram after each commit. Each statement is part of a write transaction.

-- name: port
-- Arguments: token. Result: the port it is registered with.
SELECT port FROM listener WHERE token = ?;

-- name: others
-- Arguments: own token, the time before which a listener counts as dead. Result: ports.
SELECT port FROM listener WHERE token <> ? AND seen_ms >= ?;

-- name: register
-- Arguments: token, port, now.
INSERT OR REPLACE INTO listener (token, port, seen_ms) VALUES (?, ?, ?);

-- name: unregister
-- Arguments: token.
DELETE FROM listener WHERE token = ?;

-- name: sweep
-- Arguments: the time before which a listener counts as dead.
DELETE FROM listener WHERE seen_ms < ?;
