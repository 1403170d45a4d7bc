REVOKE ALL ON setting, device, device_attribute, device_session, rae, feed, device_record FROM {role};
GRANT USAGE ON SCHEMA {schema} TO {role};
