#!/bin/sh
# The user of the image and the folders that it may write to; all else belongs to root.
set -eu

groupadd --system --gid 10001 crosstie
useradd --system --uid 10001 --gid crosstie --home-dir /var/lib/crosstie --no-create-home --shell /usr/sbin/nologin crosstie
# Of the group, too: where a volume is mounted here, an engine gives it this owner and mode.
install -d -o crosstie -g crosstie -m 0770 /var/lib/crosstie /var/lib/crosstie/prefect /var/lib/crosstie/dask
