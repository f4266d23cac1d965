#!/usr/bin/env bash
# From nothing to a comparison of base, SFT and DFT: makes .venv, trains twins through the stock
# llamafactory-cli, evaluates all three, writes runs/demo/report.html. --full: everything, longer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Where it is set, every process compiles its imports anew: half a minute with LLaMA-Factory's.
unset PYTHONDONTWRITEBYTECODE
bash scripts/setup.sh
exec .venv/bin/python -m dft_factory.demo "$@"
