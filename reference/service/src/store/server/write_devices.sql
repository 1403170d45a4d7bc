-- The names of a floor travel as one text, joined by |: arrays of arrays are not portable.
INSERT INTO device AS t (device, epoch, session, seq, names, rae, seen_at, partition)
SELECT u.device, u.epoch, u.session, u.seq, string_to_array(u.names, '|'), u.rae, u.seen_at, $8::INT8
FROM unnest($1::UUID[], $2::INT8[], $3::UUID[], $4::INT8[], $5::TEXT[], $6::TEXT[], $7::INT8[])
  AS u(device, epoch, session, seq, names, rae, seen_at)
ORDER BY u.device
ON CONFLICT (device) DO UPDATE SET
  epoch = excluded.epoch, session = excluded.session, seq = excluded.seq, names = excluded.names,
  rae = excluded.rae, seen_at = excluded.seen_at, partition = excluded.partition
WHERE (excluded.epoch, excluded.session, excluded.seq) > (t.epoch, t.session, t.seq)
