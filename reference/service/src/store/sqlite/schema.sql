-- One schema in shape with the server's. Keys are clustered (WITHOUT ROWID); ids are BLOBs of 16 bytes, so that they
-- compare by their bytes; times are milliseconds since the Unix epoch.
CREATE TABLE setting (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- The floor of each device: its newest snapshot. names: joined by |. partition: the feed that it came by.
CREATE TABLE device (
  device    BLOB PRIMARY KEY,
  epoch     INTEGER NOT NULL,
  session   BLOB NOT NULL,
  seq       INTEGER NOT NULL,
  names     TEXT NOT NULL,
  rae       TEXT NOT NULL,
  seen_at   INTEGER NOT NULL,
  partition INTEGER
) STRICT, WITHOUT ROWID;

-- The newest offer per name. value: JSON; NULL is a tombstone.
CREATE TABLE device_attribute (
  device  BLOB NOT NULL,
  name    TEXT NOT NULL,
  epoch   INTEGER NOT NULL,
  session BLOB NOT NULL,
  seq     INTEGER NOT NULL,
  value   TEXT CONSTRAINT device_attribute_value_length CHECK (octet_length(value) <= 65536),
  PRIMARY KEY (device, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE device_session (
  device  BLOB NOT NULL,
  session BLOB NOT NULL,
  epoch   INTEGER NOT NULL,
  rae     TEXT NOT NULL,
  opened  INTEGER NOT NULL,
  PRIMARY KEY (device, session)
) STRICT, WITHOUT ROWID;

-- A device may have had many sessions: the newest is found in one step.
CREATE INDEX device_session_by_age ON device_session (device, epoch, session);

CREATE TABLE rae (
  rae        TEXT PRIMARY KEY,
  boot       INTEGER NOT NULL,
  connection INTEGER NOT NULL,
  offline    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE feed (
  partition   INTEGER PRIMARY KEY,
  next_offset INTEGER NOT NULL,
  received    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The reader's interface: one row per visible attribute, and one with NULLs for a device that has none. Visible is what
-- is newer than the floor or named in it. Stale is a device whose floor is more than three snapshot periods behind what
-- has been read of its partition: neither an outage upstream nor a backlog makes the living look dead.
CREATE VIEW device_record AS
SELECT d.device, d.rae, d.epoch, d.session, d.seq, d.seen_at,
       COALESCE(COALESCE(f.received, (SELECT max(received) FROM feed)) - d.seen_at
         > 3 * (SELECT value FROM setting WHERE name = 'snapshot_period_ms'), FALSE) AS stale,
       a.name, a.value, a.epoch AS attribute_epoch, a.session AS attribute_session, a.seq AS attribute_seq
FROM device AS d
LEFT JOIN feed AS f ON f.partition = d.partition
LEFT JOIN device_attribute AS a ON a.device = d.device AND a.value IS NOT NULL
  AND ((a.epoch, a.session, a.seq) > (d.epoch, d.session, d.seq)
    OR instr('|' || d.names || '|', '|' || a.name || '|') > 0);
