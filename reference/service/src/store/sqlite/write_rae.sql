INSERT INTO rae AS t (rae, boot, connection, offline)
VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (rae) DO UPDATE SET boot = excluded.boot, connection = excluded.connection, offline = excluded.offline
WHERE (excluded.boot, excluded.connection, excluded.offline) > (t.boot, t.connection, t.offline)
