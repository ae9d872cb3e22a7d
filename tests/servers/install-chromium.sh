#!/bin/sh
# Chromium, for the tests of the pages in a real browser.
set -u

command -v chromium >/dev/null && exit 0
exec "$(dirname "$0")/debian-packages.sh" "Chromium" "the tests of the pages in a browser" chromium fonts-dejavu-core
