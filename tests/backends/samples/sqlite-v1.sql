PRAGMA application_id = 1937008738;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
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
INSERT INTO "file" VALUES(1,32,31,0,2000000000001,'sample',1767224601000,1767225601000);
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
INSERT INTO "lease" VALUES('chat:open',1767225600001,'owner of chat:open, run-1, False','run-1',1767229200000);
INSERT INTO "lease" VALUES('chat:waiting',2000000000001,'a nonce','run-9',1767227400000);
CREATE TABLE listener (
    token TEXT PRIMARY KEY,
    port INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL
) WITHOUT ROWID;
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
INSERT INTO "record" VALUES(2,1,1,4,1767225600001,X'636861743A6F70656E2F312F46616C7365',0,X'0104000180020961000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F202122232425262728292A2B2C2D2E2F303132333435363738393A3B3C3D3E3F404142434445464748494A4B4C4D4E4F505152535455565758595A5B5C5D5E5F606162636465666768696A6B6C6D6E6F707172737475767778797A7B7C7D7E7F808182838485868788898A8B8C8D8E8F909192939495969798999A9B9C9D9E9FA0A1A2A3A4A5A6A7A8A9AAABACADAEAFB0B1B2B3B4B5B6B7B8B9BABBBCBDBEBFC0C1C2C3C4C5C6C7C8C9CACBCCCDCECFD0D1D2D3D4D5D6D7D8D9DADBDCDDDEDFE0E1E2E3E4E5E6E7E8E9EAEBECEDEEEFF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFFC3A9E282ACF09F9880');
INSERT INTO "record" VALUES(3,1,5,5,1767225600001,X'636861743A6F70656E2F352F46616C7365',1,X'0101F4036C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E67206C6F6E6720');
INSERT INTO "record" VALUES(5,4,1,2,1767225600002,X'636861743A656E6465642F312F46616C7365',0,X'010203036F6E6574776F');
INSERT INTO "record" VALUES(6,4,3,3,1767225600002,X'636861743A656E6465642F332F54727565',1,X'0101057468726565');
INSERT INTO "record" VALUES(10,9,1,1,1767225600004,X'636861743A63616E63656C6C65642F312F54727565',0,X'01010468616C66');
INSERT INTO "record" VALUES(17,16,1,4,1767225600007,X'636861743A7472696D6D65642F312F46616C7365',0,X'01040101010131323334');
INSERT INTO "record" VALUES(18,16,5,5,1767225600007,X'636861743A7472696D6D65642F352F46616C7365',0,X'01010135');
INSERT INTO "record" VALUES(20,19,1,2,1767225600008,X'636861743A726573756D65642F312F46616C7365',0,X'010206096265666F7265746865206372617368');
INSERT INTO "record" VALUES(22,19,3,3,1767225600009,X'636861743A726573756D65642F332F46616C7365',0,X'0101086166746572206974');
INSERT INTO "record" VALUES(26,25,1,1,1767225600011,X'636861743A7265706C616365642F312F46616C7365',0,X'0101036E6577');
INSERT INTO "record" VALUES(28,27,1,1,1767225600012,X'636861743A756E617474656E6465642F312F46616C7365',0,X'0101076279206D616E79');
CREATE TABLE request (
    key TEXT NOT NULL,
    run TEXT NOT NULL,
    reason TEXT,
    requested_by TEXT,
    expires_ms INTEGER NOT NULL,
    changed INTEGER NOT NULL,       -- the sequence number of the request
    PRIMARY KEY (key, run)
) WITHOUT ROWID;
INSERT INTO "request" VALUES('chat:open','early',NULL,NULL,1767232800000,31);
INSERT INTO "request" VALUES('chat:open','run-1','stop','u7',1767232800000,30);
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
INSERT INTO "stream" VALUES(1,'chat:open',1,1767225600001,'owner of chat:open, run-1, False','run-1',1,'open','1767225600001-1',NULL,NULL,'{"model":"m","tokens":5}','{"unfinished_seconds":86400.0,"ended_seconds":3600.0,"fence_seconds":86400.0,"max_bytes":67108864,"max_chunks":null,"overflow":"refuse"}',1,1767312000000,1);
INSERT INTO "stream" VALUES(2,'chat:ended',1,1767225600002,'owner of chat:ended, run-1, False','run-1',1,'ended','1767225600002-1','{"v":1,"state":"completed"}',X'636861743A656E6465642F332F54727565','{"usage":{"out":3}}','{"unfinished_seconds":86400.0,"ended_seconds":3600.0,"fence_seconds":86400.0,"max_bytes":67108864,"max_chunks":null,"overflow":"refuse"}',4,1767229200000,6);
INSERT INTO "stream" VALUES(3,'chat:failed',1,1767225600003,'owner of chat:failed, run-1, False','run-1',1,'ended','1767225600003-1','{"v":1,"state":"failed","code":"RateLimit","message":"try — later"}',X'636861743A6661696C65642F312F54727565','{}','{"unfinished_seconds":86400.0,"ended_seconds":3600.0,"fence_seconds":86400.0,"max_bytes":67108864,"max_chunks":null,"overflow":"refuse"}',7,1767229200000,8);
INSERT INTO "stream" VALUES(4,'chat:cancelled',1,1767225600004,'owner of chat:cancelled, über/run, False','über/run',1,'ended','1767225600004-1','{"v":1,"state":"cancelled","reason":"user left","requested_by":"u7"}',X'636861743A63616E63656C6C65642F312F54727565','{}','{"unfinished_seconds":86400.0,"ended_seconds":3600.0,"fence_seconds":86400.0,"max_bytes":67108864,"max_chunks":null,"overflow":"refuse"}',9,1767229200000,10);
INSERT INTO "stream" VALUES(5,'chat:deleted',1,1767225600005,'owner of chat:deleted, run-1, False','run-1',1,'deleted','1767225600005-1','{"v":1,"state":"completed"}',X'636861743A64656C657465642F312F54727565','{}','{"unfinished_seconds":86400.0,"ended_seconds":3600.0,"fence_seconds":86400.0,"max_bytes":67108864,"max_chunks":null,"overflow":"refuse"}',NULL,1767312000000,13);
INSERT INTO "stream" VALUES(6,'chat:expired',1,1767225600006,'owner of chat:expired, run-1, False','run-1',1,'open','1767225600006-1',NULL,NULL,'{}','{"unfinished_seconds":0.5,"ended_seconds":3600.0,"fence_seconds":1000000000.0,"max_bytes":67108864,"max_chunks":null,"overflow":"refuse"}',NULL,2767225600500,32);
INSERT INTO "stream" VALUES(7,'chat:trimmed',1,1767225600007,'owner of chat:trimmed, run-1, False','run-1',1,'open','1767225600007-1',NULL,NULL,'{}','{"unfinished_seconds":86400.0,"ended_seconds":3600.0,"fence_seconds":86400.0,"max_bytes":67108864,"max_chunks":3,"overflow":"trim"}',16,1767312000000,16);
INSERT INTO "stream" VALUES(8,'chat:resumed',1,1767225600009,'owner of chat:resumed, run-1, True','run-1',1,'open','1767225600008-1,1767225600009-3',NULL,NULL,'{"attempt":1}','{"unfinished_seconds":86400.0,"ended_seconds":3600.0,"fence_seconds":86400.0,"max_bytes":67108864,"max_chunks":null,"overflow":"refuse"}',19,1767312000000,21);
INSERT INTO "stream" VALUES(9,'chat:replaced',1,1767225600011,'owner of chat:replaced, new, False','new',1,'open','1767225600011-1',NULL,NULL,'{}','{"unfinished_seconds":86400.0,"ended_seconds":3600.0,"fence_seconds":86400.0,"max_bytes":67108864,"max_chunks":null,"overflow":"refuse"}',25,1767312000000,25);
INSERT INTO "stream" VALUES(10,'chat:unattended',1,1767225600012,'owner of chat:unattended, run-1, False','run-1',0,'open','1767225600012-1',NULL,NULL,'{}','{"unfinished_seconds":86400.0,"ended_seconds":3600.0,"fence_seconds":86400.0,"max_bytes":99,"max_chunks":null,"overflow":"refuse"}',27,1767312000000,27);
INSERT INTO "stream" VALUES(11,'with ''quotes'' \ % {} 😀',1,1767225600013,'owner of with ''quotes'' \ % {} 😀, xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx, False','xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx',1,'open','1767225600013-1',NULL,NULL,'{}','{"unfinished_seconds":86400.0,"ended_seconds":3600.0,"fence_seconds":86400.0,"max_bytes":67108864,"max_chunks":null,"overflow":"refuse"}',29,1767312000000,29);
CREATE TABLE tail (
    stream INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,         -- the first chunk kept, perhaps inside a record; tail + 1 if none is
    tail INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL     -- when the stream expires; of a deleted one, when that was
);
INSERT INTO "tail" VALUES(1,1,5,766,1767312000000);
INSERT INTO "tail" VALUES(2,1,3,11,1767229200000);
INSERT INTO "tail" VALUES(3,1,0,0,1767229200000);
INSERT INTO "tail" VALUES(4,1,1,4,1767229200000);
INSERT INTO "tail" VALUES(5,2,1,0,1767225600000);
INSERT INTO "tail" VALUES(6,2,1,0,1767225600500);
INSERT INTO "tail" VALUES(7,3,5,3,1767312000000);
INSERT INTO "tail" VALUES(8,1,3,23,1767312000000);
INSERT INTO "tail" VALUES(9,1,1,3,1767312000000);
INSERT INTO "tail" VALUES(10,1,1,7,1767312000000);
INSERT INTO "tail" VALUES(11,1,0,0,1767312000000);
CREATE UNIQUE INDEX stream_content ON stream (content);
CREATE INDEX stream_due ON stream (due_ms);
CREATE INDEX stream_changed ON stream (changed);
CREATE UNIQUE INDEX record_last ON record (content, last);
CREATE INDEX request_changed ON request (changed);
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
COMMIT;
