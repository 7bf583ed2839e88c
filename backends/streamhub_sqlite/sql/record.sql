-- Tables record and garbage: the chunks. Each statement is part of a transaction that the caller opened.

-- name: insert
-- Arguments, for each row: id, content, first, last, generation, nonce, metadata, chunks. VALUES are added by write_many.
INSERT OR FAIL INTO record (id, content, first, last, generation, nonce, metadata, chunks)

-- name: nonce_at
-- Arguments: content, index. Result: first and nonce of the record that holds the index, or of a later one.
SELECT first, nonce FROM record WHERE content = ? AND last >= ? ORDER BY last LIMIT 1;

-- name: after
-- Arguments: content, index. Result: the records that hold later chunks, in order.
SELECT first, chunks FROM record WHERE content = ? AND last > ? ORDER BY last;

-- name: since
-- Arguments: the size from which chunks are left out, a sequence number, how many. Result: what was appended since,
-- in order, with the end of its stream.
SELECT s.key, r.id, r.first, r.generation, r.nonce, r.metadata,
    CASE WHEN length(r.chunks) < ? THEN r.chunks END, s."end", s.end_nonce
FROM record AS r CROSS JOIN stream AS s ON s.content = r.content
WHERE r.id > ? ORDER BY r.id LIMIT ?;

-- name: trim
-- Arguments: content, index. Removes the records that hold only chunks before the index.
DELETE FROM record WHERE content = ? AND last < ?;

-- name: discard
-- Arguments: content. Its records are removed later.
INSERT OR IGNORE INTO garbage (content) VALUES (?);

-- name: garbage
-- Result: one discarded content.
SELECT content FROM garbage LIMIT 1;

-- name: collect
-- Arguments: content, how many.
DELETE FROM record WHERE id IN (SELECT id FROM record WHERE content = ? LIMIT ?);

-- name: collected
-- Arguments: content. All its records are gone.
DELETE FROM garbage WHERE content = ?;
