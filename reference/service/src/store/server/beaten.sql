-- Of each session the newest one of its device that is above it, if there is one: one step in the index each. A snapshot
-- that was received before that one opened did not lose to it, but was followed by it: a rebuild reads many such. One that
-- was received in the same millisecond may have been, too: if its session lives, the next one tells.
SELECT u.device, u.session, n.epoch
FROM unnest($1::UUID[], $2::UUID[], $3::INT8[], $4::INT8[]) AS u(device, session, epoch, snapshot)
CROSS JOIN LATERAL (
  SELECT s.epoch, s.opened FROM device_session AS s
  WHERE s.device = u.device AND (s.epoch, s.session) > (u.epoch, u.session)
  ORDER BY s.epoch DESC, s.session DESC LIMIT 1) AS n
WHERE n.opened < u.snapshot
