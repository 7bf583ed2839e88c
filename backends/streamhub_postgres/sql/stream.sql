-- Table stream, but for appends. Each statement is one atomic step by itself.
-- {columns} are those of rows.py. {late} is how long ago a stream expired, in seconds, negative if it has not.
-- {topic} is what hints call a stream, see heads.py; {channel} is where they go, see channel.sql.

-- name: find
-- Arguments: keys. Result: {columns}.
SELECT {columns} FROM {schema}.stream AS s WHERE s.key = ANY ($1::text[]);

-- name: find_for_append
-- Arguments, by append: keys, first indexes. Result: place (from 1), nonce of the end, nonce of the record that holds
-- the index, {columns}. It is a statement after the one that did not store: it sees what that one waited for.
SELECT w.place, s.end_nonce,
    (SELECT CASE WHEN r.first <= w.first THEN r.nonce END FROM {schema}.record AS r
        WHERE r.content = s.content AND r.last >= w.first ORDER BY r.last LIMIT 1),
    {columns}
FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS w (key, first, place)
JOIN {schema}.stream AS s ON s.key = w.key COLLATE "C";

-- name: touch
-- Arguments: keys. Begins the retention of un-ended runs anew. Whoever holds a row is extending its life, or ending it.
WITH living AS MATERIALIZED (
    SELECT s.key FROM {schema}.stream AS s
    WHERE s.key = ANY ($1::text[]) AND s.state = 'open' AND s.expires_at > clock_timestamp() AND s.format = 1
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE {schema}.stream AS s
SET expires_at = greatest(s.expires_at, clock_timestamp() + make_interval(secs => s.unfinished_seconds))
FROM living WHERE s.key = living.key AND s.state = 'open' AND s.expires_at > clock_timestamp();

-- name: create
-- Arguments: key, generation, owner, run, attended, metadata, unfinished, ended and fence seconds, max_bytes, max_chunks,
-- overflow, whether to notify. Result: {columns}; no row if there is something by this key.
WITH created AS (
    INSERT INTO {schema}.stream AS s (key, format, generation, owner, run, attended, state, spans, metadata,
        unfinished_seconds, ended_seconds, fence_seconds, max_bytes, max_chunks, overflow,
        content, first, tail, size_bytes, expires_at, due_at)
    SELECT $1::text, 1, $2::bigint, $3::text, $4::text, $5::boolean, 'open', $2::bigint || '-1', coalesce($6::text, '{}'),
        $7::float8, $8::float8, $9::float8, $10::bigint, $11::bigint, $12::text, nextval('{schema}.content'), 1, 0, 0, t.expires_at, t.expires_at
    FROM (SELECT clock_timestamp() + make_interval(secs => $7::float8) AS expires_at) AS t
    ON CONFLICT (key) DO NOTHING
    RETURNING {columns}
), told AS MATERIALIZED (
    SELECT pg_notify({channel}, '1 d' || {topic}) FROM created AS s WHERE $13::boolean
)
SELECT created.*, (SELECT count(*) FROM told) FROM created;

-- name: reopen
-- Arguments: as in create, then: generation, owner and state of what was found, its content, whether the run is resumed.
-- Result: {columns}; no row if what was found has changed. The conditions, and the tail, are those of the row as it is
-- once it is locked: an append of a lower generation is before it, and counted, or it is refused.
WITH opened AS (
    UPDATE {schema}.stream AS s SET
        generation = $2, owner = $3, run = $4, attended = $5, state = 'open', "end" = NULL, end_nonce = NULL,
        spans = CASE WHEN $18 THEN s.spans || ',' ELSE '' END || $2::bigint || '-' || CASE WHEN $18 THEN s.tail + 1 ELSE 1 END,
        metadata = coalesce($6, CASE WHEN $18 THEN s.metadata ELSE '{}' END),
        unfinished_seconds = $7, ended_seconds = $8, fence_seconds = $9, max_bytes = $10, max_chunks = $11, overflow = $12,
        content = CASE WHEN $18 THEN s.content ELSE nextval('{schema}.content') END,
        first = CASE WHEN $18 THEN s.first ELSE 1 END,
        tail = CASE WHEN $18 THEN s.tail ELSE 0 END,
        size_bytes = CASE WHEN $18 THEN s.size_bytes ELSE 0 END,
        expires_at = clock_timestamp() + make_interval(secs => $7::float8),
        due_at = clock_timestamp() + make_interval(secs => $7::float8)
    WHERE s.key = $1 AND s.generation = $14 AND s.owner = $15 AND s.format = 1 AND $16 = CASE
        WHEN {late} >= s.fence_seconds THEN 'gone'
        WHEN {late} < 0 THEN s.state
        WHEN s.state = 'deleted' THEN 'deleted'
        ELSE 'expired'
    END
    RETURNING {columns}
), discarded AS (
    INSERT INTO {schema}.garbage (content) SELECT $17::bigint FROM opened WHERE $17::bigint IS NOT NULL AND NOT $18::boolean
    ON CONFLICT (content) DO NOTHING
), told AS MATERIALIZED (
    SELECT pg_notify({channel}, '1 d' || {topic}) FROM opened AS s WHERE $13::boolean
)
SELECT opened.*, (SELECT count(*) FROM told) FROM opened;

-- name: delete
-- Arguments: key, whether to notify. Result: how many were deleted.
WITH doomed AS MATERIALIZED (
    SELECT s.key, s.content FROM {schema}.stream AS s
    WHERE s.key = $1 AND s.state IN ('open', 'ended') AND s.expires_at > clock_timestamp() AND s.format = 1
    FOR NO KEY UPDATE
), gone AS (
    UPDATE {schema}.stream AS s SET
        state = 'deleted', content = NULL, metadata = '{}',
        expires_at = clock_timestamp(), due_at = clock_timestamp() + make_interval(secs => s.fence_seconds)
    FROM doomed WHERE s.key = doomed.key
    RETURNING s.key, doomed.content
), discarded AS (
    INSERT INTO {schema}.garbage (content) SELECT gone.content FROM gone WHERE gone.content IS NOT NULL
    ON CONFLICT (content) DO NOTHING
), told AS MATERIALIZED (
    SELECT pg_notify({channel}, '1 d' || {topic}) FROM gone AS s WHERE $2::boolean
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM told);

-- name: keys_from
-- Arguments: the key to begin at, how many. Result: key, and whether it is there: its fence may be over.
SELECT s.key, {late} < s.fence_seconds FROM {schema}.stream AS s WHERE s.key >= $1 ORDER BY s.key LIMIT $2;

-- name: keys_after
-- Arguments and result: as in keys_from, the key itself left out.
SELECT s.key, {late} < s.fence_seconds FROM {schema}.stream AS s WHERE s.key > $1 ORDER BY s.key LIMIT $2;

-- name: heads
-- Arguments: keys. Result: key, and what changes whenever the stream does.
SELECT s.key, s.generation, s.tail, s.state || CASE WHEN {late} < 0 THEN '' ELSE ' expired' END
FROM {schema}.stream AS s WHERE s.key = ANY ($1::text[]);

-- name: sweep
-- Arguments: how many rows to look at, whether to notify. Result: how many were looked at, and how many were removed.
-- An expired stream becomes a fence, a fence that is over goes, and what was given more time is looked at then. Rows
-- that somebody has locked are left for the next time, so that any number of hubs may sweep.
WITH due AS MATERIALIZED (
    SELECT s.key, s.content FROM {schema}.stream AS s
    WHERE s.due_at <= now() AND s.format = 1 ORDER BY s.due_at LIMIT $1 FOR UPDATE SKIP LOCKED
), forgotten AS (
    DELETE FROM {schema}.stream AS s USING due
    WHERE s.key = due.key AND s.expires_at + make_interval(secs => s.fence_seconds) <= now()
    RETURNING s.key, due.content
), fenced AS (
    UPDATE {schema}.stream AS s SET
        state = 'expired', content = NULL, metadata = '{}',
        due_at = s.expires_at + make_interval(secs => s.fence_seconds)
    FROM due
    WHERE s.key = due.key AND s.state IN ('open', 'ended') AND s.expires_at <= now()
        AND s.expires_at + make_interval(secs => s.fence_seconds) > now()
    RETURNING s.key, due.content
), postponed AS (
    UPDATE {schema}.stream AS s SET
        due_at = CASE WHEN s.expires_at > now() THEN s.expires_at
            ELSE s.expires_at + make_interval(secs => s.fence_seconds) END
    FROM due
    WHERE s.key = due.key AND (s.expires_at > now() OR (s.state IN ('deleted', 'expired')
        AND s.expires_at + make_interval(secs => s.fence_seconds) > now()))
), removed AS (
    SELECT forgotten.key, forgotten.content FROM forgotten UNION ALL SELECT fenced.key, fenced.content FROM fenced
), discarded AS (
    INSERT INTO {schema}.garbage (content) SELECT removed.content FROM removed WHERE removed.content IS NOT NULL
    ON CONFLICT (content) DO NOTHING
), told AS MATERIALIZED (
    SELECT pg_notify({channel}, '1 ' || string_agg('d' || {topic}, ' '))
    FROM (SELECT removed.key, row_number() OVER () / 200 AS part FROM removed) AS s
    WHERE $2::boolean GROUP BY s.part
)
SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM removed), (SELECT count(*) FROM told);
