SELECT rae, boot, connection, offline FROM rae
