-- Table request: cancel requests. Each statement is one atomic step by itself.

-- name: store
-- Arguments: key, run, said, seconds, whether to notify, payload. Result: how many were stored: the first one stays
-- until its time is over. It is notified when it is stored.
WITH stored AS (
    INSERT INTO {schema}.request AS r (key, run, said, expires_at)
    VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4::float8))
    ON CONFLICT (key, run) DO UPDATE SET said = excluded.said, expires_at = excluded.expires_at
    WHERE r.expires_at <= clock_timestamp()
    RETURNING 1
), told AS MATERIALIZED (
    SELECT pg_notify({channel}, $6::text) FROM stored WHERE $5::boolean
)
SELECT (SELECT count(*) FROM stored), (SELECT count(*) FROM told);

-- name: pending
-- Arguments, by run: keys, runs. Result: place (from 1) and what was said, of those that are stored.
SELECT w.place, r.said
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (key, run, place)
JOIN {schema}.request AS r ON r.key = w.key COLLATE "C" AND r.run = w.run COLLATE "C"
WHERE r.expires_at > clock_timestamp();

-- name: sweep
-- Arguments: how many. Result: how many were removed.
WITH due AS MATERIALIZED (
    SELECT r.key, r.run FROM {schema}.request AS r
    WHERE r.expires_at <= now() ORDER BY r.expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.request AS r USING due
    WHERE r.key = due.key AND r.run = due.run AND r.expires_at <= now() RETURNING 1
)
SELECT count(*) FROM gone;
