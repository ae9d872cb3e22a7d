#!/bin/sh
# SeaweedFS takes keys from a file of its own form (-s3.config): they come from files, as all secrets here. One pair of keys may do all; the
# other, that of the site, can only read. Then the image's own entrypoint goes on.
set -eu
read_key() {
    value=$(cat "$1")
    case $value in
        # Without keys it would serve everybody.
        "" | *[!A-Za-z0-9+/=_.-]*) echo "$1 is empty, or holds a character that no key has" >&2 && exit 1 ;;
    esac
    printf %s "$value"
}
all_id=$(read_key /run/secrets/s3_access_key)
all_key=$(read_key /run/secrets/s3_secret_key)
site_id=$(read_key /run/secrets/s3_site_access_key)
site_key=$(read_key /run/secrets/s3_site_secret_key)
cat >/tmp/s3.json <<END
{"identities": [
    {"name": "crosstie", "credentials": [{"accessKey": "$all_id", "secretKey": "$all_key"}], "actions": ["Admin"]},
    {"name": "site", "credentials": [{"accessKey": "$site_id", "secretKey": "$site_key"}], "actions": ["Read", "List"]}
]}
END
exec /entrypoint.sh "$@"
