#!/bin/sh
# Usage: make-base-image.sh NAME PACKAGE,...   Debian 12 with these packages, as build/images/NAME.tar, made once.
set -eu

images=$(dirname "$0")/../../build/images
made=$images/$1.tar
[ -s "$made" ] && exit 0

echo "making $1, which stands in for an image (Debian 12)"
mkdir -p "$images"
root=$(mktemp -d "$images/root.XXXXXX")
trap 'rm -rf "$root" "$made.part"' EXIT
if ! debootstrap --variant=minbase --include="$2" bookworm "$root/tree" http://deb.debian.org/debian >"$root/log" 2>&1; then
    tail -n 5 "$root/log"
    echo "debootstrap could not make $1 (above): the tests of the image are skipped."
    [ "${CI:-}" = true ] && exit 1
    exit 0
fi
rm -rf "$root/tree/var/cache/apt" "$root/tree/var/lib/apt/lists"
# What slim images leave out, and pages of Prometheus that nobody looks at.
for name in doc i18n javascript locale man; do rm -rf "$root/tree/usr/share/$name"; done
mkdir -p "$root/tree/var/cache/apt/archives/partial" "$root/tree/var/lib/apt/lists/partial"
# As in Debian's own images: what apt has fetched does not stay.
cat >"$root/tree/etc/apt/apt.conf.d/docker-clean" <<'CONF'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
CONF
tar -C "$root/tree" -cf "$made.part" .
mv "$made.part" "$made"
