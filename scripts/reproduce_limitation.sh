#!/usr/bin/env bash
# Facts that no model knows, and known questions with wrong answers among them: SmolLM2 trained on
# both with SFT and DFT, three seeds, compared with confidence intervals in
# runs/limitation/report.md. 8 GB of memory, under an hour on two cores; a second run goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Where it is set, every process compiles its imports anew: half a minute with LLaMA-Factory's.
unset PYTHONDONTWRITEBYTECODE
bash scripts/setup.sh
exec .venv/bin/python -m dft_factory.limitation "$@"
