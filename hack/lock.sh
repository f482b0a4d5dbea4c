#!/usr/bin/env bash
# Lock the dependencies with hashes: hack/lock.sh UV [--upgrade]
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$1
shift
compile() { "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header "$@"; }
echo 'uv>=0.8' | compile - -o requirements/uv.txt "$@"
# hatchling and editables are what the editable install of the project is built with.
printf 'uv>=0.8\nhatchling>=1.27\neditables>=0.5\n' > requirements/build.in
compile pyproject.toml --group dev --extra embedded --extra llm --extra operator --extra grpc requirements/build.in -o requirements/dev.txt --no-emit-package prokos "$@"
# What the images are made of: Linux alone.
printf 'hatchling>=1.27\n' | compile - -o requirements/build.txt "$@"
compile pyproject.toml --extra http --extra sql --extra grpc -o requirements/worker.txt --no-emit-package prokos "$@"
compile pyproject.toml --extra operator --extra llm -o requirements/system.txt --no-emit-package prokos "$@"
