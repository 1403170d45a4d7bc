-- The view reads its tables by the rights of its owner.
GRANT SELECT ON device_record TO {role};
