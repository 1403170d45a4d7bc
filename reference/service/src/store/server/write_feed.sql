INSERT INTO feed AS t (partition, next_offset, received)
SELECT u.partition, u.next_offset, u.received
FROM unnest($1::INT8[], $2::INT8[], $3::INT8[]) AS u(partition, next_offset, received)
ON CONFLICT (partition) DO UPDATE SET
  next_offset = greatest(t.next_offset, excluded.next_offset), received = greatest(t.received, excluded.received)
