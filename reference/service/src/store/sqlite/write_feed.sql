INSERT INTO feed AS t (partition, next_offset, received)
VALUES (?1, ?2, ?3)
ON CONFLICT (partition) DO UPDATE SET
  next_offset = max(t.next_offset, excluded.next_offset), received = max(t.received, excluded.received)
