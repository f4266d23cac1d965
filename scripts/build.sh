#!/usr/bin/env bash
# Builds sdist and wheel into a folder (default: dist/) and checks them with twine:
#   bash scripts/build.sh [FOLDER]
# build and twine run in environments of their own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-dist}
bash scripts/setup.sh
uv=.venv/bin/uv
"$uv" tool run --from build pyproject-build --installer uv --outdir "$folder" .
"$uv" tool run twine check --strict "$folder"/dft_factory-*
