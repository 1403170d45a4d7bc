INSERT INTO device_session (device, session, epoch, rae, opened)
SELECT u.device, u.session, u.epoch, u.rae, u.opened
FROM unnest($1::UUID[], $2::UUID[], $3::INT8[], $4::TEXT[], $5::INT8[]) AS u(device, session, epoch, rae, opened)
ORDER BY u.device, u.session
ON CONFLICT (device, session) DO NOTHING
