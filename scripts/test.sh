#!/usr/bin/env bash
# Makes .venv, then linters, types and every test. Installs nothing system-wide.
#   --with-toolchains   fails if any test could not run (no test needs a system package yet: the
#                       sandbox comes in a wheel)
# Tests on other people's published items read the folder that DFT_TEST_DATA names.
# More words are handed to pytest: bash scripts/test.sh tests/unit -k loss
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

with_toolchains=
if [ "${1:-}" = "--with-toolchains" ]; then
  with_toolchains=1
  shift
fi
bash scripts/setup.sh
source .venv/bin/activate

ruff check .
ruff format --check .
MYPYPATH=eval mypy
lint-imports

pytest ${with_toolchains:+--with-toolchains} "$@"
