-- Device by device (OFFSET 0 keeps the sub-query one), so by key: for a thousand of them PostgreSQL would rather read
-- every attribute of the fleet.
SELECT r.device, r.epoch, r.session, r.seq, r.rae, r.seen_at, r.stale,
       r.name, r.value, r.attribute_epoch, r.attribute_session, r.attribute_seq
FROM unnest($1::UUID[]) AS u(device)
CROSS JOIN LATERAL (SELECT * FROM device_record AS d WHERE d.device = u.device OFFSET 0) AS r
