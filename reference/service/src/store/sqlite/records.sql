SELECT device, epoch, session, seq, rae, seen_at, stale, name, value, attribute_epoch, attribute_session, attribute_seq
FROM device_record
