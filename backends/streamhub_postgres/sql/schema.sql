-- The schema's version. Each statement is one step; what is run together is run in one transaction.

-- name: exists
-- Result: whether the table of versions is there. Read from the tables of the catalog: a name that was looked up before,
-- and was not there, may be remembered as such until the transaction ends, though it has been made meanwhile.
SELECT EXISTS (
    SELECT 1 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = {literal} AND c.relname = 'migration'
);

-- name: version
-- Result: the version of the schema; 0 for none.
SELECT coalesce(max(version), 0) FROM {schema}.migration;

-- name: lock
-- Only one process at a time changes the schema; the lock ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('streamhub ' || {literal}, 0));

-- name: begin
-- The schema itself may have been made by somebody else. IF NOT EXISTS would ask for the right to make one first.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {literal}) THEN
        CREATE SCHEMA {schema};
    END IF;
END $$;

-- name: table
CREATE TABLE IF NOT EXISTS {schema}.migration (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: note
-- Arguments: {version}.
INSERT INTO {schema}.migration (version) VALUES ({version});
