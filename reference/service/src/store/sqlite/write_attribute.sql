INSERT INTO device_attribute AS t (device, name, epoch, session, seq, value)
VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (device, name) DO UPDATE SET
  epoch = excluded.epoch, session = excluded.session, seq = excluded.seq, value = excluded.value
WHERE (excluded.epoch, excluded.session, excluded.seq) > (t.epoch, t.session, t.seq)
