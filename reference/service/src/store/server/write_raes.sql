INSERT INTO rae AS t (rae, boot, connection, offline)
SELECT u.rae, u.boot, u.connection, u.offline
FROM unnest($1::TEXT[], $2::INT8[], $3::INT8[], $4::BOOL[]) AS u(rae, boot, connection, offline)
ORDER BY u.rae
ON CONFLICT (rae) DO UPDATE SET boot = excluded.boot, connection = excluded.connection, offline = excluded.offline
WHERE (excluded.boot, excluded.connection, excluded.offline) > (t.boot, t.connection, t.offline)
