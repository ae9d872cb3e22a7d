#!/bin/sh
# PostgreSQL with PostGIS, for the tests that need a STAC API.
set -u

for control in /usr/share/postgresql/*/extension/postgis.control; do
    version=$(basename "$(dirname "$(dirname "$control")")")
    if [ -f "$control" ] && [ -x "/usr/lib/postgresql/$version/bin/initdb" ]; then
        exit 0
    fi
done
exec "$(dirname "$0")/debian-packages.sh" "PostgreSQL with PostGIS" "the tests against a STAC API" \
    postgresql postgresql-postgis
