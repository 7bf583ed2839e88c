-- Table lease. Each statement is part of a transaction that the caller opened.

-- name: find
-- Arguments: key. Result: generation, owner, run, expires_ms.
SELECT generation, owner, run, expires_ms FROM lease WHERE key = ?;

-- name: put
-- Arguments: key, generation, owner, run, expires_ms.
INSERT OR REPLACE INTO lease (key, generation, owner, run, expires_ms) VALUES (?, ?, ?, ?, ?);

-- name: renew
-- Arguments: the new expiry, key, owner, generation, now. Changes one row if the lease is still owned, else none.
UPDATE lease SET expires_ms = ? WHERE key = ? AND owner = ? AND generation = ? AND expires_ms > ?;

-- name: release
-- Arguments: key, owner, generation.
DELETE FROM lease WHERE key = ? AND owner = ? AND generation = ?;

-- name: sweep
-- Arguments: now, how many.
DELETE FROM lease WHERE key IN (SELECT key FROM lease WHERE expires_ms <= ? LIMIT ?);
