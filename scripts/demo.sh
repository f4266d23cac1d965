#!/usr/bin/env bash
# From nothing to a comparison of base, SFT and DFT in runs/demo/report.html: makes .venv, runs the
# experiment configs/experiments/demo.yaml. More words are handed to `dft-factory run demo`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Where it is set, every process compiles its imports anew: half a minute with LLaMA-Factory's.
unset PYTHONDONTWRITEBYTECODE
bash scripts/setup.sh
exec .venv/bin/dft-factory run demo "$@"
