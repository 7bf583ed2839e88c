SET client_encoding = 'UTF8';
SET check_function_bodies = false;
CREATE SCHEMA streamhub;
CREATE FUNCTION streamhub.counted() RETURNS bigint
    LANGUAGE sql
    AS $$SELECT c.generation FROM "streamhub".counter AS c$$;
CREATE TABLE streamhub.channel (
    id boolean DEFAULT true NOT NULL,
    name text NOT NULL,
    CONSTRAINT channel_id_check CHECK (id)
);
CREATE SEQUENCE streamhub.content
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
CREATE TABLE streamhub.counter (
    id boolean DEFAULT true NOT NULL,
    generation bigint NOT NULL,
    CONSTRAINT counter_id_check CHECK (id)
);
CREATE TABLE streamhub.garbage (
    content bigint NOT NULL
);
CREATE TABLE streamhub.lease (
    key text NOT NULL COLLATE pg_catalog."C",
    generation bigint NOT NULL,
    owner text NOT NULL,
    run text NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='500');
CREATE TABLE streamhub.migration (
    version integer NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE streamhub.record (
    content bigint NOT NULL,
    last bigint NOT NULL,
    first bigint NOT NULL,
    nonce bytea NOT NULL,
    chunks bytea NOT NULL
)
WITH (autovacuum_vacuum_insert_scale_factor='0.2');
CREATE TABLE streamhub.request (
    key text NOT NULL COLLATE pg_catalog."C",
    run text NOT NULL COLLATE pg_catalog."C",
    said text NOT NULL,
    expires_at timestamp with time zone NOT NULL
);
CREATE TABLE streamhub.stream (
    key text NOT NULL COLLATE pg_catalog."C",
    format smallint NOT NULL,
    generation bigint NOT NULL,
    owner text NOT NULL,
    run text NOT NULL,
    attended boolean NOT NULL,
    state text NOT NULL,
    spans text NOT NULL,
    "end" text,
    end_nonce bytea,
    metadata text NOT NULL,
    unfinished_seconds double precision NOT NULL,
    ended_seconds double precision NOT NULL,
    fence_seconds double precision NOT NULL,
    max_bytes bigint NOT NULL,
    max_chunks bigint,
    overflow text NOT NULL,
    content bigint,
    first bigint NOT NULL,
    tail bigint NOT NULL,
    size_bytes bigint NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='500', toast_tuple_target='512');
CREATE VIEW streamhub.streams AS
 SELECT s.key,
    s.run,
    s.generation,
        CASE
            WHEN ((s.state <> 'deleted'::text) AND (s.expires_at <= now())) THEN 'expired'::text
            ELSE s.state
        END AS state,
    s.first,
    s.tail,
    s.size_bytes,
    s."end",
    s.metadata,
    EXTRACT(epoch FROM (s.expires_at - now())) AS expires_in,
    l.run AS holder,
    EXTRACT(epoch FROM (l.expires_at - now())) AS lease_in
   FROM (streamhub.stream s
     LEFT JOIN streamhub.lease l ON (((l.key = s.key) AND (l.expires_at > now()))));
INSERT INTO streamhub.channel VALUES (true, 'streamhub_0c243d9175e645228c0b62b992a51861');
INSERT INTO streamhub.counter VALUES (true, 0);
INSERT INTO streamhub.lease VALUES ('unfinished', 1795410592747, 'o', 'run-1', '2026-11-23 05:10:52.747104+00', '2026-11-23 05:10:52.747104+00');
INSERT INTO streamhub.migration VALUES (1, '2026-11-23 05:09:52.679019+00');
INSERT INTO streamhub.record VALUES (2, 2, 1, '\x6e6f6e63652d37', '\x010201016162');
INSERT INTO streamhub.record VALUES (2, 3, 3, '\x6e6f6e63652d39', '\x01010163');
INSERT INTO streamhub.record VALUES (1, 3, 1, '\x6e6f6e6365', '\x01030300086f6e656472656920e282ac');
INSERT INTO streamhub.request VALUES ('unfinished', 'run-1', '{"v": 1, "reason": "user", "requested_by": "u7"}', '2026-11-23 06:09:52.750701+00');
INSERT INTO streamhub.stream VALUES ('unfinished', 1, 9, 'owner-9', 'run-1', true, 'open', '7-1,9-3', NULL, NULL, '{"model":"m"}', 86400, 3600, 86400, 67108864, NULL, 'refuse', 2, 1, 3, 3, '2026-11-24 05:09:52.742754+00', '2026-11-24 05:09:52.738392+00');
INSERT INTO streamhub.stream VALUES ('ended', 1, 7, 'owner-7', 'run-1', true, 'ended', '7-1', '{"v":1,"state":"completed"}', '\x6e6f6e6365', '{"model":"m"}', 86400, 3600, 86400, 67108864, NULL, 'refuse', 1, 1, 3, 11, '2026-11-23 06:09:52.743753+00', '2026-11-23 06:09:52.743753+00');
SELECT pg_catalog.setval('streamhub.content', 2, true);
ALTER TABLE ONLY streamhub.channel
    ADD CONSTRAINT channel_pkey PRIMARY KEY (id);
ALTER TABLE ONLY streamhub.counter
    ADD CONSTRAINT counter_pkey PRIMARY KEY (id);
ALTER TABLE ONLY streamhub.garbage
    ADD CONSTRAINT garbage_pkey PRIMARY KEY (content);
ALTER TABLE ONLY streamhub.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (key);
ALTER TABLE ONLY streamhub.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (version);
ALTER TABLE ONLY streamhub.record
    ADD CONSTRAINT record_pkey PRIMARY KEY (content, last);
ALTER TABLE ONLY streamhub.request
    ADD CONSTRAINT request_pkey PRIMARY KEY (key, run);
ALTER TABLE ONLY streamhub.stream
    ADD CONSTRAINT stream_pkey PRIMARY KEY (key);
CREATE INDEX lease_due ON streamhub.lease USING btree (due_at);
CREATE INDEX request_expires ON streamhub.request USING btree (expires_at);
CREATE INDEX stream_due ON streamhub.stream USING btree (due_at);
