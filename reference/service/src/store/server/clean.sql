DELETE FROM device_attribute AS a USING device AS d
WHERE a.device >= $1::UUID AND a.device <= $2::UUID
  AND d.device >= $1::UUID AND d.device <= $2::UUID AND d.device = a.device
  AND (a.epoch, a.session, a.seq) <= (d.epoch, d.session, d.seq)
  AND NOT (a.name = ANY (d.names))
