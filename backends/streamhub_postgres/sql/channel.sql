-- Table channel: where this schema's notifications go. Its name is the secret of those who may read the table: whoever
-- does not know it can neither listen nor notify there, though both need no right.

-- name: name
-- Result: the channel's name.
SELECT h.name FROM {schema}.channel AS h;

-- name: probe
-- Arguments: payload.
SELECT pg_notify({channel}, $1);
