#!/bin/sh
# application.sh WHEEL: crosstie itself, on top of its dependencies.
set -eu

venv=/opt/crosstie/venv
python=${PYTHON:-python3.11}

"$python" -m pip --python $venv/bin/python install --no-compile --quiet --disable-pip-version-check --root-user-action ignore \
    --no-index --no-deps "$1"
$venv/bin/python -m compileall -q --invalidation-mode unchecked-hash $venv/lib/python3.11/site-packages/crosstie
