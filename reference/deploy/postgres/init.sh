# Sourced once by the entry point of the PostgreSQL image, in an empty data directory: TLS, for everybody who comes over the
# network, and the roles. /secrets is the folder `postgres` of what the script `secrets` makes.
install -m 600 /secrets/key.pem "$PGDATA/server.key"
install -m 600 /secrets/certificate.pem "$PGDATA/server.crt"
sed -i 's/^host /hostssl /' "$PGDATA/pg_hba.conf"
psql --no-psqlrc --set ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname="$POSTGRES_DB" --quiet \
    --set owner="$(cat /secrets/migrate-password)" --set registry="$(cat /secrets/registry-password)" \
    --set reader="$(cat /secrets/reader-password)" --file=/deploy/roles.sql \
    --command='ALTER SYSTEM SET ssl = on' --command="ALTER SYSTEM SET ssl_min_protocol_version = 'TLSv1.2'"
