#!/bin/sh
# What the image `chrislusf/seaweedfs` does: the folder of data is its user's, and it serves as that user.
set -eu
chown 1000:1000 /data
exec setpriv --reuid=1000 --regid=1000 --clear-groups -- weed "$@"
