-- Of each session the newest one of its device that is above it, if there is one: one step in the index each.
SELECT u.device, u.session, n.epoch
FROM unnest($1::UUID[], $2::UUID[], $3::INT8[]) AS u(device, session, epoch)
CROSS JOIN LATERAL (
  SELECT s.epoch FROM device_session AS s
  WHERE s.device = u.device AND (s.epoch, s.session) > (u.epoch, u.session)
  ORDER BY s.epoch DESC, s.session DESC LIMIT 1) AS n
