-- The one row of table file. Each statement is part of a transaction that transaction.py opens.

-- name: load
-- Result: one row, as FileState has it.
SELECT changed, requested, listeners, generation, boot, offset_ms, seen_ms FROM file;

-- name: save
-- Arguments: FileState's fields. The caller holds the write lock since it loaded the row.
UPDATE file SET changed = ?, requested = ?, listeners = ?, generation = ?, boot = ?, offset_ms = ?, seen_ms = ?;

-- name: create
-- Arguments: FileState's fields.
INSERT INTO file (id, changed, requested, listeners, generation, boot, offset_ms, seen_ms)
VALUES (1, ?, ?, ?, ?, ?, ?, ?);

-- name: free
-- After a boot of the host no process of before is alive: nobody holds a lease.
DELETE FROM lease;
