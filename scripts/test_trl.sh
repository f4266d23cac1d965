#!/usr/bin/env bash
# docs/python-api.md in an environment of its own, without LLaMA-Factory and with a newer TRL:
#   scripts/test_trl.sh [TRL_VERSION] [TRANSFORMERS_VERSION]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv=$(command -v uv || echo .venv/bin/uv)
"$uv" venv --quiet --python 3.11 "$folder/env"
"$uv" build --quiet --wheel --out-dir "$folder" .
"$uv" pip install --quiet --python "$folder/env/bin/python" \
  "$(echo "$folder"/*.whl)" "torch==2.11.0" "trl${1:+==$1}" "transformers${2:+==$2}" pytest hypothesis pyyaml
"$uv" pip list --quiet --python "$folder/env/bin/python" | grep -E '^(torch|trl|transformers|llamafactory) ' || true
# The tests of the checkout, the package of the wheel.
cp -r tests docs "$folder"
cd "$folder"
env/bin/python -m pytest -q -p no:cacheprovider tests/contract/test_python_api.py tests/unit/test_functional.py
