-- Tables stream and tail: one stream's state. Each statement is part of a transaction that the caller opened.

-- name: find
-- Arguments: key. Result: one row, as streams.Row has it.
SELECT s.id, s.key, s.format, s.generation, s.owner, s.run, s.attended, s.state, s.spans, s."end", s.end_nonce,
    s.metadata, s.retention, s.content, s.due_ms, t.first, t.tail, t.size_bytes, t.expires_ms
FROM stream AS s JOIN tail AS t ON t.stream = s.id
WHERE s.key = ?;

-- name: find_many
-- Arguments: keys as a JSON array. Result: one value, a JSON array of rows as in find, without metadata and with
-- end_nonce in hexadecimal. One value means one step: each step of a query may cost this thread its turn.
SELECT json_group_array(json_array(
    s.id, s.key, s.format, s.generation, s.owner, s.run, s.attended, s.state, s.spans, s."end", nullif(hex(s.end_nonce), ''),
    '{}', s.retention, s.content, s.due_ms, t.first, t.tail, t.size_bytes, t.expires_ms))
FROM json_each(?) AS k CROSS JOIN stream AS s ON s.key = k.value JOIN tail AS t ON t.stream = s.id;

-- name: insert
-- Arguments: key, format, generation, owner, run, attended, state, spans, end, end_nonce, metadata, retention,
-- content, due_ms, changed.
INSERT INTO stream (key, format, generation, owner, run, attended, state, spans, "end", end_nonce, metadata, retention,
    content, due_ms, changed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: set_tail
-- Arguments, for each row: stream id, first, tail, size_bytes, expires_ms. VALUES are added by write_many.
INSERT OR REPLACE INTO tail (stream, first, tail, size_bytes, expires_ms)

-- name: update
-- Arguments: as in insert without key, then id.
UPDATE stream SET format = ?, generation = ?, owner = ?, run = ?, attended = ?, state = ?, spans = ?, "end" = ?,
    end_nonce = ?, metadata = ?, retention = ?, content = ?, due_ms = ?, changed = ?
WHERE id = ?;

-- name: end
-- Arguments: end, end_nonce, due_ms, changed, id.
UPDATE stream SET state = 'ended', "end" = ?, end_nonce = ?, due_ms = ?, changed = ? WHERE id = ?;

-- name: metadata
-- Arguments: metadata, id.
UPDATE stream SET metadata = ? WHERE id = ?;

-- name: fence
-- Arguments: state, due_ms, changed, id. Run and end stay. The content is the caller's to throw away.
UPDATE stream SET state = ?, due_ms = ?, changed = ?, metadata = '{}', content = NULL WHERE id = ?;

-- name: touch
-- Arguments: the new expiry, stream id. Never shortens a life.
UPDATE tail SET expires_ms = max(expires_ms, ?) WHERE stream = ?;

-- name: keys
-- Arguments: the key to go on after (or to begin at), how many. Result: key, state, expires_ms, retention.
SELECT s.key, s.state, t.expires_ms, s.retention
FROM stream AS s JOIN tail AS t ON t.stream = s.id
WHERE s.key > ? ORDER BY s.key LIMIT ?;

-- name: keys_from
-- Arguments and result: as in keys, the key itself included.
SELECT s.key, s.state, t.expires_ms, s.retention
FROM stream AS s JOIN tail AS t ON t.stream = s.id
WHERE s.key >= ? ORDER BY s.key LIMIT ?;

-- name: due
-- Arguments: format, now, how many. Result: keys of the rows that sweep must look at.
SELECT key FROM stream WHERE format = ? AND due_ms <= ? ORDER BY due_ms LIMIT ?;

-- name: postpone
-- Arguments: due_ms, id.
UPDATE stream SET due_ms = ? WHERE id = ?;

-- name: forget
-- Arguments: id. Its row in tail goes with forget_tail.
DELETE FROM stream WHERE id = ?;

-- name: forget_tail
-- Arguments: id.
DELETE FROM tail WHERE stream = ?;

-- name: changed
-- Arguments: a sequence number. Result: the streams that were opened, ended or removed since, with its number.
SELECT key, changed FROM stream WHERE changed > ? ORDER BY changed;
