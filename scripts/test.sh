#!/usr/bin/env bash
# Makes .venv, then linters, types and every test. Installs nothing system-wide, but with
#   --with-toolchains   first installs the system and npm packages that the remaining tests need
#                       (scripts/toolchains.sh), then fails if any test could not run
# Tests on other people's published items read the folder that DFT_TEST_DATA names.
# More words are handed to pytest: bash scripts/test.sh tests/unit -k loss
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Where it is set, every process compiles its imports anew: half a minute with LLaMA-Factory's.
unset PYTHONDONTWRITEBYTECODE

with_toolchains=
if [ "${1:-}" = "--with-toolchains" ]; then
  with_toolchains=1
  shift
fi
bash scripts/setup.sh
if [ -n "$with_toolchains" ]; then
  bash scripts/toolchains.sh
fi
source .venv/bin/activate

ruff check .
ruff format --check .
MYPYPATH=eval mypy
lint-imports

# Most tests wait for a process of one thread: a worker a core. A module stays with one worker.
pytest --numprocesses "${DFT_TEST_WORKERS:-2}" --dist loadscope ${with_toolchains:+--with-toolchains} "$@"
