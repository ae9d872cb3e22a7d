#!/bin/sh
# PostgreSQL with PostGIS for the tests that need a STAC API. Installs Debian's packages where it may, says what to do
# where it may not. It fails only where CI=true: elsewhere the tests that need it are skipped with this very line.
set -u

for control in /usr/share/postgresql/*/extension/postgis.control; do
    version=$(basename "$(dirname "$(dirname "$control")")")
    if [ -f "$control" ] && [ -x "/usr/lib/postgresql/$version/bin/initdb" ]; then
        exit 0
    fi
done

log=$(mktemp)
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing PostgreSQL with PostGIS (Debian packages)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >"$log" 2>&1
    if apt-get install -y -qq --no-install-recommends postgresql postgresql-postgis >>"$log" 2>&1; then
        rm -f "$log"
        exit 0
    fi
    tail -n 5 "$log"
    why="apt-get could not install them (above)"
else
    why="this needs root and apt-get"
fi
rm -f "$log"
echo "PostgreSQL with PostGIS is missing, and $why: the tests against a STAC API are skipped."
echo "Get it with: sudo apt-get install postgresql postgresql-postgis"
[ "${CI:-}" = true ] && exit 1
exit 0
