#!/usr/bin/env bash
# Experiments on a SLURM cluster of two nodes on this machine: minutes, as root, Debian 12.
# Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONDONTWRITEBYTECODE
bash scripts/setup.sh
bash scripts/slurm_local.sh --install
.venv/bin/uv pip install --quiet --python .venv/bin/python --constraint constraints.txt \
  --editable '.[experiments]' 'snakemake-executor-plugin-slurm>=2.8,<3'
source .venv/bin/activate
DFT_TEST_CLUSTER=1 exec pytest tests/cluster "$@"
