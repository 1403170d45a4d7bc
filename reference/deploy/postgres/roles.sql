-- Roles of a deployment, run once by the administrator of an empty database, with the passwords as variables of psql. What
-- each may do with the tables is given by `dmp-registry migrate`, which makes them.
CREATE ROLE dmp_owner LOGIN PASSWORD :'owner';
CREATE ROLE dmp_registry LOGIN PASSWORD :'registry';
CREATE ROLE dmp_reader LOGIN PASSWORD :'reader';

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO dmp_owner, dmp_registry, dmp_reader;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER SCHEMA public OWNER TO dmp_owner;
