DELETE FROM device
WHERE device IN (
  SELECT d.device FROM device AS d
  LEFT JOIN feed AS f ON f.partition = d.partition
  WHERE COALESCE(f.received, (SELECT max(received) FROM feed)) - d.seen_at
    > 3 * (SELECT value FROM setting WHERE name = 'snapshot_period_ms') + ?1
  ORDER BY d.device LIMIT ?2)
RETURNING device
