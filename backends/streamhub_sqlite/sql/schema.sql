-- The schema of a streamhub file, format 1.
-- Arguments: none. Result: the tables below, empty. Atomicity: run as a whole inside one BEGIN IMMEDIATE.
-- All times (..._ms) are milliseconds of the file's clock; see clock.py.

-- One row: what is true of the whole file. It is read and written by every writing transaction.
CREATE TABLE file (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    changed INTEGER NOT NULL,       -- the last sequence number given to a change
    requested INTEGER NOT NULL,     -- the sequence number of the last cancel request
    listeners INTEGER NOT NULL,     -- the sequence number of the last change to table listener
    generation INTEGER NOT NULL,    -- the last generation given
    boot TEXT NOT NULL,             -- the boot of the host that offset_ms holds for
    offset_ms INTEGER NOT NULL,     -- the file's clock minus the host's monotonic clock
    seen_ms INTEGER NOT NULL        -- the time of the last writing transaction
);

-- One row for each stream or fence: what changes when a run begins or ends.
CREATE TABLE stream (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    format INTEGER NOT NULL,        -- the version of spans, metadata and retention
    generation INTEGER NOT NULL,
    owner TEXT NOT NULL,            -- the nonce of the open that began the generation
    run TEXT NOT NULL,
    attended INTEGER NOT NULL,
    state TEXT NOT NULL,            -- open, ended or deleted; expired follows from tail.expires_ms
    spans TEXT NOT NULL,            -- "7-1,9-43": generation and first index of each open of the run
    "end" TEXT,                     -- JSON, with its version under "v"
    end_nonce BLOB,
    metadata TEXT NOT NULL,         -- JSON object
    retention TEXT NOT NULL,        -- JSON object
    content INTEGER,                -- whose records are the run's; NULL once they are gone
    due_ms INTEGER NOT NULL,        -- when sweep must look at this row, or earlier
    changed INTEGER NOT NULL        -- the sequence number of the last change to this row that readers should learn of
);
CREATE UNIQUE INDEX stream_content ON stream (content);
CREATE INDEX stream_due ON stream (due_ms);
CREATE INDEX stream_changed ON stream (changed);

-- One row for each row of stream: what changes with every append.
CREATE TABLE tail (
    stream INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,         -- the first chunk kept, perhaps inside a record; tail + 1 if none is
    tail INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL     -- when the stream expires; of a deleted one, when that was
);

-- One row for each append with chunks. Each run has a content number of its own.
CREATE TABLE record (
    id INTEGER PRIMARY KEY,         -- the sequence number of the append
    content INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    nonce BLOB NOT NULL,
    metadata INTEGER NOT NULL,      -- 1 if the append set metadata, too
    chunks BLOB NOT NULL            -- packed; the first byte is the format's version
);
CREATE UNIQUE INDEX record_last ON record (content, last);

-- Contents that no stream holds any more: their records are removed a few at a time.
CREATE TABLE garbage (
    content INTEGER PRIMARY KEY
);

CREATE TABLE lease (
    key TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    owner TEXT NOT NULL,            -- the nonce of the acquire that won it
    run TEXT NOT NULL,
    expires_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Cancel requests.
CREATE TABLE request (
    key TEXT NOT NULL,
    run TEXT NOT NULL,
    reason TEXT,
    requested_by TEXT,
    expires_ms INTEGER NOT NULL,
    changed INTEGER NOT NULL,       -- the sequence number of the request
    PRIMARY KEY (key, run)
) WITHOUT ROWID;
CREATE INDEX request_changed ON request (changed);

-- The processes that want a datagram on 127.0.0.1 after each commit.
CREATE TABLE listener (
    token TEXT PRIMARY KEY,
    port INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- For people: one line for each stream, with the time left in seconds.
CREATE VIEW streams AS
SELECT
    s.key,
    s.run,
    s.generation,
    CASE WHEN s.state <> 'deleted' AND t.expires_ms <= f.seen_ms THEN 'expired' ELSE s.state END AS state,
    t.first,
    t.tail,
    t.size_bytes,
    s."end",
    s.metadata,
    (t.expires_ms - f.seen_ms) / 1000.0 AS expires_in,
    l.run AS holder,
    (l.expires_ms - f.seen_ms) / 1000.0 AS lease_in
FROM stream AS s
JOIN tail AS t ON t.stream = s.id
JOIN file AS f ON f.id = 1
LEFT JOIN lease AS l ON l.key = s.key AND l.expires_ms > f.seen_ms;
