DELETE FROM device_session WHERE device = ANY ($1::UUID[])
