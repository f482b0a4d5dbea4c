#!/usr/bin/env bash
# Install the project and its locked dependencies into a virtual environment: hack/setup.sh VENV
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
  echo "ProkOS needs Python 3.11, 3.12 or 3.13; '$python' is none of them. Set PYTHON=/path/to/python3.11" >&2
  exit 1
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
  echo "ProkOS needs Python's venv module (on Debian: apt-get install python3-venv)" >&2
  exit 1
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "installing the locked dependencies into $venv ..." >&2
# uv keeps itself at the locked version afterwards; pip is needed for its first time only.
[ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
"$venv/bin/uv" pip sync --quiet --python "$venv/bin/python" --require-hashes requirements/dev.txt
# The project itself comes last and alone: its dependencies are the locked ones, its build needs only hatchling.
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
