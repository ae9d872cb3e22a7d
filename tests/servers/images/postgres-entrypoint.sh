#!/bin/sh
# What the image `postgres` does with its variables at its first start, and that it serves as the user postgres.
set -eu
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; }

mkdir -p "$PGDATA" /run/postgresql
chown postgres:postgres "$PGDATA" /run/postgresql
chmod 0700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    asked=$(mktemp)
    cat "$POSTGRES_PASSWORD_FILE" >"$asked"
    chown postgres:postgres "$asked"
    # shellcheck disable=SC2086  # several options in one variable
    as_postgres initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile="$asked" --encoding=UTF8 \
        --locale=C --no-instructions --no-sync ${POSTGRES_INITDB_ARGS-}
    rm "$asked"
    printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    printf "listen_addresses = '*'\nunix_socket_directories = '/run/postgresql'\n" >>"$PGDATA/postgresql.conf"
    printf 'CREATE DATABASE "%s";\n' "$POSTGRES_DB" | as_postgres postgres --single -D "$PGDATA" postgres
fi
exec setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"
