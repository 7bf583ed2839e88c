-- Table lease. Each statement is one atomic step by itself.

-- name: acquire
-- Arguments: key, owner, run, seconds, above, void.
-- Result: the generation, and the counter afterwards if the row is new; no row if another owner holds the lease.
-- The row that the insert meets is locked, and judged as it is then: of concurrent calls one wins. A generation is at
-- least the clock's milliseconds, so that none is given twice though this table is lost; the table, and the counter of
-- what was removed from it, keep generations growing though the clock goes back. Whoever waited for a sweep that
-- removed the row may have judged by the counter as it was before: a generation that is not above it is not to be used.
INSERT INTO {schema}.lease AS l (key, generation, owner, run, expires_at, due_at)
SELECT $1, greatest(
        $5::bigint + 1,
        (SELECT c.generation + 1 FROM {schema}.counter AS c),
        (extract(epoch FROM clock_timestamp()) * 1000)::bigint),
    $2, $3, t.expires_at, t.expires_at
FROM (SELECT clock_timestamp() + make_interval(secs => $4::float8) AS expires_at) AS t
ON CONFLICT (key) DO UPDATE SET
    generation = CASE
        WHEN l.owner = excluded.owner AND l.expires_at > clock_timestamp() AND l.generation > $6::bigint THEN l.generation
        ELSE greatest(excluded.generation, l.generation + 1)
    END,
    owner = excluded.owner,
    run = excluded.run,
    expires_at = excluded.expires_at,
    due_at = excluded.due_at
WHERE l.owner = excluded.owner OR l.expires_at <= clock_timestamp() OR l.generation <= $6::bigint
RETURNING l.generation, CASE WHEN l.xmax = 0 THEN {schema}.counted() ELSE 0 END;

-- name: holders
-- Arguments: keys. Result: for each lease that is held: key, generation, run, seconds left.
SELECT l.key, l.generation, l.run, extract(epoch FROM l.expires_at - clock_timestamp())::float8
FROM {schema}.lease AS l
WHERE l.key = ANY ($1::text[]) AND l.expires_at > clock_timestamp();

-- name: renew
-- Arguments, by lease: keys, generations, owners, seconds. Result: the places (from 1) of those that are still owned.
UPDATE {schema}.lease AS l SET expires_at = clock_timestamp() + make_interval(secs => h.seconds)
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::float8[]) WITH ORDINALITY AS h (key, generation, owner, seconds, place)
WHERE l.key = h.key COLLATE "C" AND l.generation = h.generation AND l.owner = h.owner
    AND l.expires_at > clock_timestamp()
RETURNING h.place;

-- name: release
-- Arguments: key, generation, owner. The row stays until sweep: it remembers the generation.
UPDATE {schema}.lease SET expires_at = least(expires_at, clock_timestamp()), due_at = least(due_at, clock_timestamp())
WHERE key = $1 AND generation = $2 AND owner = $3;

-- name: sweep
-- Arguments: how many. Result: how many rows were looked at. Rows that somebody has locked are left for the next time.
-- A lease that was renewed since it was noted down is looked at again later; one that ran out leaves its generation.
WITH due AS MATERIALIZED (
    SELECT l.key FROM {schema}.lease AS l WHERE l.due_at <= now() ORDER BY l.due_at LIMIT $1 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.lease AS l USING due WHERE l.key = due.key AND l.expires_at <= now() RETURNING l.generation
), postponed AS (
    UPDATE {schema}.lease AS l SET due_at = l.expires_at + interval '5 minutes'
    FROM due WHERE l.key = due.key AND l.expires_at > now()
), counted AS (
    UPDATE {schema}.counter AS c SET generation = greatest(c.generation, (SELECT max(gone.generation) FROM gone))
    WHERE c.generation < (SELECT max(gone.generation) FROM gone)
)
SELECT count(*) FROM due;
