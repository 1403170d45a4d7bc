-- A snapshot that was received before the newest session opened did not lose to it, but was followed by it; so may one
-- that was received in the same millisecond.
SELECT epoch FROM (
  SELECT epoch, opened FROM device_session
  WHERE device = ?1 AND (epoch, session) > (?3, ?2)
  ORDER BY epoch DESC, session DESC LIMIT 1)
WHERE opened < ?4
