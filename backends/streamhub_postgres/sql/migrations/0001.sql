-- Version 1: the whole schema.
-- Arguments: the schema's name. Result: the objects below, empty. Atomicity: schema.py runs it inside one transaction,
-- under an advisory lock, and notes the version.

-- One row for each stream or fence. Appends change it in place (HOT): none of the columns they set is indexed.
CREATE TABLE {schema}.stream (
    key text COLLATE "C" PRIMARY KEY,
    format smallint NOT NULL,           -- the version of this row
    generation bigint NOT NULL,
    owner text NOT NULL,                -- the nonce of the open that began the generation
    run text NOT NULL,
    attended boolean NOT NULL,
    state text NOT NULL,                -- open, ended, deleted or expired; expired already once expires_at has passed
    spans text NOT NULL,                -- "7-1,9-43": generation and first index of each open of the run
    "end" text,                         -- JSON, with its version under "v"
    end_nonce bytea,
    metadata text NOT NULL,             -- a JSON object
    unfinished_seconds double precision NOT NULL,
    ended_seconds double precision NOT NULL,
    fence_seconds double precision NOT NULL,
    max_bytes bigint NOT NULL,
    max_chunks bigint,
    overflow text NOT NULL,             -- refuse or trim
    content bigint,                     -- whose records are the run's; NULL once they are given up
    first bigint NOT NULL,              -- the first chunk kept, perhaps inside a record; tail + 1 if none is
    tail bigint NOT NULL,
    size_bytes bigint NOT NULL,
    expires_at timestamptz NOT NULL,    -- when the stream expires; of a deleted one, when that was
    due_at timestamptz NOT NULL         -- when sweep must look at this row, or earlier
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);
-- An update carries every column that is stored in the row: what is long moves out of it.
ALTER TABLE {schema}.stream SET (toast_tuple_target = 512);
CREATE INDEX stream_due ON {schema}.stream (due_at);

-- One row for each append, or for each part of a large one. Every run has a content number of its own.
CREATE TABLE {schema}.record (
    content bigint NOT NULL,
    last bigint NOT NULL,
    first bigint NOT NULL,
    nonce bytea NOT NULL,               -- of the append
    chunks bytea NOT NULL,              -- packed; the first byte is the format's version
    PRIMARY KEY (content, last)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.2);
CREATE SEQUENCE {schema}.content AS bigint;

-- Contents that no stream holds any more: sweep removes their records, some at a time.
CREATE TABLE {schema}.garbage (
    content bigint PRIMARY KEY
);

-- One row for each lease, perhaps released or run out. Renewals change it in place (HOT).
CREATE TABLE {schema}.lease (
    key text COLLATE "C" PRIMARY KEY,
    generation bigint NOT NULL,
    owner text NOT NULL,                -- the nonce of the acquire that won it
    run text NOT NULL,
    expires_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL         -- when sweep must look at this row, or earlier
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);
CREATE INDEX lease_due ON {schema}.lease (due_at);

-- Cancel requests.
CREATE TABLE {schema}.request (
    key text COLLATE "C" NOT NULL,
    run text COLLATE "C" NOT NULL,
    said text NOT NULL,                 -- JSON: version, reason and requester
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (key, run)
);
CREATE INDEX request_expires ON {schema}.request (expires_at);

-- One row: the highest generation among the leases that sweep has removed.
CREATE TABLE {schema}.counter (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    generation bigint NOT NULL
);
INSERT INTO {schema}.counter (generation) VALUES (0);

-- The same as it is at the moment of the call, not as the statement that calls it saw it at its beginning.
CREATE FUNCTION {schema}.counted() RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT c.generation FROM {schema}.counter AS c';

-- One row: the channel of the notifications. Nobody guesses it who may not read it.
CREATE TABLE {schema}.channel (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    name text NOT NULL
);
INSERT INTO {schema}.channel (name) VALUES ('streamhub_' || replace(gen_random_uuid()::text, '-', ''));

-- For people: one line for each stream, with the time left in seconds.
CREATE VIEW {schema}.streams AS
SELECT
    s.key,
    s.run,
    s.generation,
    CASE WHEN s.state <> 'deleted' AND s.expires_at <= now() THEN 'expired' ELSE s.state END AS state,
    s.first,
    s.tail,
    s.size_bytes,
    s."end",
    s.metadata,
    extract(epoch FROM s.expires_at - now()) AS expires_in,
    l.run AS holder,
    extract(epoch FROM l.expires_at - now()) AS lease_in
FROM {schema}.stream AS s
LEFT JOIN {schema}.lease AS l ON l.key = s.key AND l.expires_at > now();
