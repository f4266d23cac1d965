#!/usr/bin/env bash
# Builds the documentation site into site/, in an environment of its own (.venvs/docs):
#   bash scripts/build_docs.sh            fails on any warning
#   bash scripts/build_docs.sh serve      on http://127.0.0.1:8000, rebuilt when a page changes
# PYTHON names the interpreter to use (default: python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONPATH
environment=.venvs/docs
if [ ! -x "$environment/bin/mkdocs" ]; then
  "${PYTHON:-python3}" -m venv "$environment"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
fi
export NO_MKDOCS_2_WARNING=1 # material's notice about MkDocs 2, which the extra excludes
if [ "${1:-}" = serve ]; then
  exec "$environment/bin/mkdocs" serve --strict
fi
exec "$environment/bin/mkdocs" build --strict --clean
