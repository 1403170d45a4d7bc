DELETE FROM device_attribute AS a
WHERE a.device >= ?1 AND a.device <= ?2
  AND EXISTS (
    SELECT 1 FROM device AS d
    WHERE d.device = a.device
      AND (a.epoch, a.session, a.seq) <= (d.epoch, d.session, d.seq)
      AND instr('|' || d.names || '|', '|' || a.name || '|') = 0)
