-- To each table what write, clean-up and the snapshot period at start do with it.
GRANT SELECT, INSERT, UPDATE ON setting, rae, feed TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON device, device_attribute TO {role};
GRANT SELECT, INSERT, DELETE ON device_session TO {role};
