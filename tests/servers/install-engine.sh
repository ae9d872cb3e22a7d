#!/bin/sh
# podman with runc, and what stands in for the images that a build begins with, in build/images: no registry is asked for them.
set -u

here=$(dirname "$0")
has() { command -v "$1" >/dev/null; }

if ! { has podman && has runc && has debootstrap && has iptables && [ -x /usr/lib/podman/netavark ]; }; then
    "$here/debian-packages.sh" "A container engine" "the tests of the image" \
        podman runc netavark aardvark-dns iptables debootstrap || exit 1
fi
has podman && has debootstrap && [ "$(id -u)" -eq 0 ] || exit 0
"$here/make-base-image.sh" python python3.11,python3.11-venv,python3-pip || exit 1
exec "$here/make-base-image.sh" servers postgresql,prometheus,wget
