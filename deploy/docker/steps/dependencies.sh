#!/bin/sh
# dependencies.sh VARIANT: all that crosstie needs, in /opt/crosstie/venv, in the versions of constraints.txt. VARIANT is cpu or cuda.
#
# EXTRAS (kubernetes, planetary) adds optional dependencies; TORCH_INDEX is where torch without CUDA lies. Which index serves the rest
# is pip's own configuration.
set -eu

variant=$1
venv=/opt/crosstie/venv
python=${PYTHON:-python3.11}

case $variant in
    cpu) index=${TORCH_INDEX-} ;;
    # The plain index has it with CUDA: its libraries come as packages, the driver from the host.
    cuda) index= ;;
    *)
        echo "VARIANT is cpu or cuda, not '$variant'" >&2
        exit 2
        ;;
esac

# pip stays outside: the image needs none.
"$python" -m venv --without-pip $venv

# pip cannot install the dependencies of a project without the project; a change of the sources alone is not to install them again.
"$python" - pyproject.toml "${EXTRAS-}" >/tmp/requirements.txt <<'PYTHON'
import sys, tomllib

project = tomllib.load(open(sys.argv[1], "rb"))["project"]
extras = [name for name in sys.argv[2].split(",") if name]
for requirement in project["dependencies"] + [r for name in extras for r in project["optional-dependencies"][name]]:
    print(requirement)
PYTHON
"$python" -m pip --python $venv/bin/python install --no-compile --quiet --disable-pip-version-check --root-user-action ignore \
    -c constraints.txt -r /tmp/requirements.txt ${index:+--extra-index-url "$index"}
rm /tmp/requirements.txt
