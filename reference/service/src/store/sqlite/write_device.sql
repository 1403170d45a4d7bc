INSERT INTO device AS t (device, epoch, session, seq, names, rae, seen_at, partition)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (device) DO UPDATE SET
  epoch = excluded.epoch, session = excluded.session, seq = excluded.seq, names = excluded.names,
  rae = excluded.rae, seen_at = excluded.seen_at, partition = excluded.partition
WHERE (excluded.epoch, excluded.session, excluded.seq) > (t.epoch, t.session, t.seq)
