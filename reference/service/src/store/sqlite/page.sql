SELECT max(device) FROM (SELECT device FROM device WHERE device >= ?1 ORDER BY device LIMIT ?2)
