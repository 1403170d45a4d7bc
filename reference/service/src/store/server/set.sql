INSERT INTO setting (name, value) VALUES ($1::TEXT, $2::INT8)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
