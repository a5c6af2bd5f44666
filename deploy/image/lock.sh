#!/usr/bin/env bash
# The versions and hashes of all that goes into the image, and of what builds it.
# usage: lock.sh BIN [options of `uv pip compile`, such as --upgrade]; BIN has uv and python.
set -euo pipefail
bin=$(realpath "$1")
shift
cd "$(dirname "$0")/../.."
compile=("$bin/uv" pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes
  --no-emit-index-url --custom-compile-command "make lock" "$@")
"${compile[@]}" --extra kubernetes --extra otel pyproject.toml -o deploy/image/requirements.lock
"$bin/python" - <<'PYTHON' | "${compile[@]}" - -o deploy/image/build.lock
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
print(*project["build-system"]["requires"], *project["project"]["optional-dependencies"]["image"], sep="\n")
PYTHON
