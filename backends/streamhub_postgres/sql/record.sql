-- Tables record and garbage, but for appends. Each statement is one atomic step by itself.

-- name: read
-- Arguments, by read: keys, after, most chunks, most bytes. Result: place (from 1), the records that hold the chunks
-- after the index as two arrays, {columns}. One snapshot: stream and records belong together.
-- A record may begin before the chunks that were asked for, and end after them.
SELECT w.place, p.firsts, p.chunks, {columns}
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY AS w (key, after, max_chunks, max_bytes, place)
JOIN {schema}.stream AS s ON s.key = w.key COLLATE "C"
LEFT JOIN LATERAL (
    SELECT array_agg(q.first ORDER BY q.last) AS firsts, array_agg(q.chunks ORDER BY q.last) AS chunks
    FROM (
        SELECT i.first, i.last, i.chunks, sum(octet_length(i.chunks)) OVER (ORDER BY i.last) - octet_length(i.chunks) AS before
        FROM (
            SELECT r.first, r.last, r.chunks FROM {schema}.record AS r
            WHERE r.content = s.content AND r.last > w.after AND w.after >= s.first - 1 AND w.after < s.tail
            ORDER BY r.last LIMIT w.max_chunks
        ) AS i
    ) AS q
    WHERE q.before < w.max_bytes
) AS p ON true;

-- name: oldest
-- Arguments: content, index, how many. Result: first index and chunks of the records that hold chunks from the index on.
SELECT r.first, r.chunks FROM {schema}.record AS r WHERE r.content = $1 AND r.last >= $2 ORDER BY r.last LIMIT $3;

-- name: collect
-- Arguments: how many contents, how many records of each. Result: how many contents were looked at, and how many records
-- removed. A content goes once none of its records is left. Nobody writes records of a discarded content.
WITH picked AS MATERIALIZED (
    SELECT g.content FROM {schema}.garbage AS g ORDER BY g.content LIMIT $1 FOR UPDATE SKIP LOCKED
), doomed AS MATERIALIZED (
    SELECT d.content, d.last FROM picked CROSS JOIN LATERAL (
        SELECT r.content, r.last FROM {schema}.record AS r
        WHERE r.content = picked.content ORDER BY r.last LIMIT $2
    ) AS d
), gone AS (
    DELETE FROM {schema}.record AS r USING doomed WHERE r.content = doomed.content AND r.last = doomed.last RETURNING 1
), emptied AS (
    DELETE FROM {schema}.garbage AS g USING picked
    WHERE g.content = picked.content AND NOT EXISTS (SELECT 1 FROM doomed WHERE doomed.content = g.content)
)
SELECT (SELECT count(*) FROM picked), (SELECT count(*) FROM gone);
