SELECT epoch FROM device_session
WHERE device = ?1 AND (epoch, session) > (?3, ?2)
ORDER BY epoch DESC, session DESC LIMIT 1
