-- For PostgreSQL and CockroachDB alike. Times are milliseconds since the Unix epoch. Repeatable: a migration that was
-- cut off is taken up by the next.
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value INT8 NOT NULL);

-- The floor of each device: its newest snapshot. partition: the feed that it came by.
CREATE TABLE IF NOT EXISTS device (
  device    UUID PRIMARY KEY,
  epoch     INT8 NOT NULL,
  session   UUID NOT NULL,
  seq       INT8 NOT NULL,
  names     TEXT[] NOT NULL,
  rae       TEXT NOT NULL,
  seen_at   INT8 NOT NULL,
  partition INT8
);

-- The newest offer per name. value: JSON; NULL is a tombstone.
CREATE TABLE IF NOT EXISTS device_attribute (
  device  UUID NOT NULL,
  name    TEXT NOT NULL,
  epoch   INT8 NOT NULL,
  session UUID NOT NULL,
  seq     INT8 NOT NULL,
  value   TEXT CONSTRAINT device_attribute_value_length CHECK (octet_length(value) <= 65536),
  PRIMARY KEY (device, name)
);

CREATE TABLE IF NOT EXISTS device_session (
  device  UUID NOT NULL,
  session UUID NOT NULL,
  epoch   INT8 NOT NULL,
  rae     TEXT NOT NULL,
  opened  INT8 NOT NULL,
  PRIMARY KEY (device, session)
);

-- A device may have had many sessions: the newest is found in one step.
CREATE INDEX IF NOT EXISTS device_session_by_age ON device_session (device, epoch, session);

CREATE TABLE IF NOT EXISTS rae (
  rae        TEXT PRIMARY KEY,
  boot       INT8 NOT NULL,
  connection INT8 NOT NULL,
  offline    BOOL NOT NULL
);

CREATE TABLE IF NOT EXISTS feed (
  partition   INT8 PRIMARY KEY,
  next_offset INT8 NOT NULL,
  received    INT8 NOT NULL
);

-- The reader's interface: one row per visible attribute, and one with NULLs for a device that has none. Visible is what
-- is newer than the floor or named in it. Stale is a device whose floor is more than three snapshot periods behind what
-- has been read of its partition: neither an outage upstream nor a backlog makes the living look dead.
CREATE OR REPLACE VIEW device_record AS
SELECT d.device, d.rae, d.epoch, d.session, d.seq, d.seen_at,
       COALESCE(COALESCE(f.received, (SELECT max(received) FROM feed)) - d.seen_at
         > 3 * (SELECT value FROM setting WHERE name = 'snapshot_period_ms'), FALSE) AS stale,
       a.name, a.value, a.epoch AS attribute_epoch, a.session AS attribute_session, a.seq AS attribute_seq
FROM device AS d
LEFT JOIN feed AS f ON f.partition = d.partition
LEFT JOIN device_attribute AS a ON a.device = d.device AND a.value IS NOT NULL
  AND ((a.epoch, a.session, a.seq) > (d.epoch, d.session, d.seq) OR a.name = ANY (d.names));
