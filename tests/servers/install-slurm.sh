#!/bin/sh
# SLURM: its controller, its node's daemon and munge, for the tests of the job in deploy/hpc.
set -u

command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null && exit 0
# RUNLEVEL=1: its services are not to be started here.
RUNLEVEL=1 exec "$(dirname "$0")/debian-packages.sh" "SLURM" "the tests of the job of SLURM" slurm-wlm munge
