DELETE FROM device_attribute WHERE device = ANY ($1::UUID[])
