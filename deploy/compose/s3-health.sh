#!/bin/sh
# Usage: s3-health.sh BUCKET,...   Whether objects can be written: the front door opens before there are buckets, and volumes to write to.
set -eu
ask() { wget -q -O /dev/null "http://127.0.0.1:$1"; }

ask 8333/healthz
for bucket in $(echo "$1" | tr , ' '); do
    ask "8888/buckets/$bucket/?limit=1"
    # Volumes belong to a bucket. Where it has none that can be written, one is made, as for the first object.
    ask "9333/dir/assign?collection=$bucket"
done
