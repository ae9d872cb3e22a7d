#!/bin/sh
# Prometheus and its promtool, for the tests of the alert rules and of what is scraped. Installs Debian's package where it may
# (nothing is started), says what to do where it may not. It fails only where CI=true: elsewhere those tests are skipped.
set -u

command -v promtool >/dev/null && command -v prometheus >/dev/null && exit 0

log=$(mktemp)
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing Prometheus (Debian package)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >"$log" 2>&1
    # RUNLEVEL=1: its service is not to be started here.
    if RUNLEVEL=1 apt-get install -y -qq --no-install-recommends prometheus >>"$log" 2>&1; then
        rm -f "$log"
        exit 0
    fi
    tail -n 5 "$log"
    why="apt-get could not install it (above)"
else
    why="this needs root and apt-get"
fi
rm -f "$log"
echo "Prometheus is missing, and $why: the tests of the alert rules are skipped."
echo "Get it with: sudo apt-get install prometheus"
[ "${CI:-}" = true ] && exit 1
exit 0
