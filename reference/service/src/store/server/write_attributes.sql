-- What is there already is kept out before it conflicts: a refused conflict would still lock and log its row. The guard
-- below remains what decides, against writers that this statement does not see. The look-up is a scalar sub-query, which
-- PostgreSQL runs by the key whatever it believes of the table's size: as a join, planned while the table was empty, it
-- read the whole table for each batch.
INSERT INTO device_attribute AS t (device, name, epoch, session, seq, value)
SELECT u.device, u.name, u.epoch, u.session, u.seq, u.value
FROM unnest($1::UUID[], $2::TEXT[], $3::INT8[], $4::UUID[], $5::INT8[], $6::TEXT[])
  AS u(device, name, epoch, session, seq, value)
WHERE (
  SELECT (o.epoch, o.session, o.seq) >= (u.epoch, u.session, u.seq)
  FROM device_attribute AS o WHERE o.device = u.device AND o.name = u.name) IS NOT TRUE
ORDER BY u.device, u.name
ON CONFLICT (device, name) DO UPDATE SET
  epoch = excluded.epoch, session = excluded.session, seq = excluded.seq, value = excluded.value
WHERE (excluded.epoch, excluded.session, excluded.seq) > (t.epoch, t.session, t.seq)
