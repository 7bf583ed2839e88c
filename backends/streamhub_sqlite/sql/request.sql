-- Table request: cancel requests. Each statement is part of a transaction that the caller opened.

-- name: find
-- Arguments: key, run, now. Result: reason, requested_by.
SELECT reason, requested_by FROM request WHERE key = ? AND run = ? AND expires_ms > ?;

-- name: put
-- Arguments: key, run, reason, requested_by, expires_ms, changed.
INSERT OR REPLACE INTO request (key, run, reason, requested_by, expires_ms, changed) VALUES (?, ?, ?, ?, ?, ?);

-- name: since
-- Arguments: a sequence number, now. Result: the requests stored since.
SELECT key, run, reason, requested_by FROM request WHERE changed > ? AND expires_ms > ? ORDER BY changed;

-- name: sweep
-- Arguments: now, how many.
DELETE FROM request WHERE (key, run) IN (SELECT key, run FROM request WHERE expires_ms <= ? LIMIT ?);
