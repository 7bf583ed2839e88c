-- Append: one statement for all streams of a flush.

-- name: append
-- Arguments, by append: keys, generations, tails before, tails after, nonces, payload bytes, first records and their last
-- indexes, whether the record may go out with the hint, metadata, ends; and for those that trim: the first index and the
-- bytes that were kept when the trimming was planned, and those that are kept after it (NULL for others).
-- Then of all further records: place of the append (from 1), first index, last index, chunks. Then whether to
-- notify.
-- Result: the places (from 1) of the appends that were stored.
-- Atomicity: an update waits for whoever holds the row, and then judges the row as it is: the fence, the tail and the
-- end that count are those that nobody can change before this commits. What matches none of the conditions changes
-- nothing, and a later statement says why. Records are those of stored appends only, and so is what is notified.
WITH item AS MATERIALIZED (
    SELECT i.key COLLATE "C" AS key, i.generation, i.before, i.last, i.nonce, i.size_bytes, i.chunks, i.upto, i.pushed,
        i.metadata, i."end", i.seen_first, i.seen_bytes, i.first, i.kept_bytes, i.place
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bytea[], $8::bigint[],
        $9::boolean[], $10::text[], $11::text[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[])
    WITH ORDINALITY AS i (key, generation, before, last, nonce, size_bytes, chunks, upto, pushed,
        metadata, "end", seen_first, seen_bytes, first, kept_bytes, place)
), stored AS (
    UPDATE {schema}.stream AS s SET
        tail = i.last,
        first = coalesce(i.first, s.first),
        size_bytes = coalesce(i.kept_bytes, s.size_bytes + i.size_bytes),
        metadata = coalesce(i.metadata, s.metadata),
        state = CASE WHEN i."end" IS NULL THEN 'open' ELSE 'ended' END,
        "end" = i."end",
        end_nonce = CASE WHEN i."end" IS NULL THEN NULL ELSE i.nonce END,
        expires_at = clock_timestamp() + make_interval(
            secs => CASE WHEN i."end" IS NULL THEN s.unfinished_seconds ELSE s.ended_seconds END),
        due_at = CASE WHEN i."end" IS NULL THEN s.due_at ELSE clock_timestamp() + make_interval(secs => s.ended_seconds) END
    FROM item AS i
    WHERE s.key = i.key AND s.generation = i.generation AND s.state = 'open' AND s.tail = i.before AND s.format = 1
        AND s.expires_at > clock_timestamp()
        AND CASE WHEN i.first IS NOT NULL THEN s.first = i.seen_first AND s.size_bytes = i.seen_bytes
            ELSE i.last = i.before OR (s.size_bytes + i.size_bytes <= s.max_bytes
                AND (s.max_chunks IS NULL OR i.last - s.first + 1 <= s.max_chunks))
        END
    RETURNING s.key, s.content, i.generation, i.before, i.last, i.nonce, i.chunks, i.upto, i.pushed, i."end",
        i.first, i.place
), kept AS (
    INSERT INTO {schema}.record (content, first, last, nonce, chunks)
    SELECT s.content, s.before + 1, s.upto, s.nonce, s.chunks FROM stored AS s WHERE s.chunks IS NOT NULL
    UNION ALL
    SELECT s.content, m.first, m.last, s.nonce, m.chunks
    FROM unnest($16::integer[], $17::bigint[], $18::bigint[], $19::bytea[]) AS m (place, first, last, chunks)
    JOIN stored AS s ON s.place = m.place
), trimmed AS (
    DELETE FROM {schema}.record AS r USING stored AS s
    WHERE s.first IS NOT NULL AND r.content = s.content AND r.last < s.first
), head AS MATERIALIZED (
    SELECT s.place, CASE WHEN s.pushed
        THEN 'a' || {topic} || ',' || s.generation || ',' || s.before || ',' || s.last || ','
            || coalesce(encode(s.chunks, 'base64'), '') || ',' || coalesce(encode(convert_to(s."end", 'UTF8'), 'base64'), '')
        ELSE 'd' || {topic} END AS text
    FROM stored AS s WHERE $20::boolean
), part AS (
    SELECT head.text, sum(octet_length(head.text) + 1) OVER (ORDER BY head.place) / 3500 AS number FROM head
), told AS MATERIALIZED (
    SELECT pg_notify({channel}, '1 ' || string_agg(part.text, ' ')) FROM part GROUP BY part.number
)
SELECT s.place, (SELECT count(*) FROM told) FROM stored AS s;

-- name: confirm
-- Arguments: keys. An append that is there already was perhaps not acknowledged because its commit still waits, for a
-- standby, or was told to stop waiting. Whoever commits after it waits for it, too.
UPDATE {schema}.stream AS s SET owner = s.owner WHERE s.key = ANY ($1::text[]);
