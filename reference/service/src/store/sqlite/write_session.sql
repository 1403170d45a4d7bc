INSERT INTO device_session (device, session, epoch, rae, opened)
VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (device, session) DO NOTHING
