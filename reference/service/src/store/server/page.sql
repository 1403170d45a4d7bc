SELECT p.device
FROM (SELECT device FROM device WHERE device >= $1::UUID ORDER BY device LIMIT $2::INT8) AS p
ORDER BY p.device DESC LIMIT 1
