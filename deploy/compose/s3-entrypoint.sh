#!/bin/sh
# SeaweedFS takes the keys that it asks for from its environment: they come from files, as all secrets here, and the image's own
# entrypoint goes on.
set -eu
AWS_ACCESS_KEY_ID=$(cat /run/secrets/s3_access_key)
AWS_SECRET_ACCESS_KEY=$(cat /run/secrets/s3_secret_key)
# Without keys it would serve everybody.
: "${AWS_ACCESS_KEY_ID:?/run/secrets/s3_access_key is empty}" "${AWS_SECRET_ACCESS_KEY:?/run/secrets/s3_secret_key is empty}"
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
exec /entrypoint.sh "$@"
