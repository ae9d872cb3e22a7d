#!/bin/sh
# Prometheus and its promtool, for the tests of the alert rules and of what is scraped.
set -u

command -v promtool >/dev/null && command -v prometheus >/dev/null && exit 0
# RUNLEVEL=1: its service is not to be started here.
RUNLEVEL=1 exec "$(dirname "$0")/debian-packages.sh" "Prometheus" "the tests of the alert rules" prometheus
