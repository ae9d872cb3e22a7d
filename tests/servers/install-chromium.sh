#!/bin/sh
# Chromium, for the tests of the pages in a real browser. Installs Debian's package where it may, says what to do where it may
# not. It fails only where CI=true: elsewhere those tests are skipped.
set -u

command -v chromium >/dev/null && exit 0

log=$(mktemp)
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing Chromium (Debian package)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >"$log" 2>&1
    if apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >>"$log" 2>&1; then
        rm -f "$log"
        exit 0
    fi
    tail -n 5 "$log"
    why="apt-get could not install it (above)"
else
    why="this needs root and apt-get"
fi
rm -f "$log"
echo "Chromium is missing, and $why: the tests of the pages in a browser are skipped."
echo "Get it with: sudo apt-get install chromium"
[ "${CI:-}" = true ] && exit 1
exit 0
