-- The last condition stands on the row that is deleted, so that one that a writer has just raised is judged anew.
DELETE FROM device AS t
WHERE t.device IN (
  SELECT d.device FROM device AS d
  LEFT JOIN feed AS f ON f.partition = d.partition
  WHERE COALESCE(f.received, (SELECT max(received) FROM feed)) - d.seen_at
    > 3 * (SELECT value FROM setting WHERE name = 'snapshot_period_ms') + $1::INT8
  ORDER BY d.device LIMIT $2::INT8)
  AND COALESCE((SELECT f.received FROM feed AS f WHERE f.partition = t.partition), (SELECT max(received) FROM feed))
    - t.seen_at > 3 * (SELECT value FROM setting WHERE name = 'snapshot_period_ms') + $1::INT8
RETURNING t.device
