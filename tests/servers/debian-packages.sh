#!/bin/sh
# Usage: debian-packages.sh WHAT FOR PACKAGE...   Installs Debian's packages where it may, says what to do where it may not. It
# fails only where CI=true: elsewhere the tests that need WHAT are skipped with this very line.
set -u
what=$1 tests=$2
shift 2

log=$(mktemp)
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing $what (Debian packages)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >"$log" 2>&1
    if apt-get install -y -qq --no-install-recommends "$@" >>"$log" 2>&1; then
        rm -f "$log"
        exit 0
    fi
    tail -n 5 "$log"
    why="apt-get could not install it (above)"
else
    why="this needs root and apt-get"
fi
rm -f "$log"
echo "$what is missing, and $why: $tests are skipped."
echo "Get it with: sudo apt-get install $*"
[ "${CI:-}" = true ] && exit 1
exit 0
