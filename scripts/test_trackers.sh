#!/usr/bin/env bash
# `report_to: mlflow` and `wandb`, and `--track`, on files; not part of the suite (100 packages):
#   bash scripts/test_trackers.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONDONTWRITEBYTECODE
bash scripts/setup.sh
[ -d .venvs/trackers/mlflow ] || .venv/bin/uv pip install --quiet --target .venvs/trackers \
  --constraint constraints.txt mlflow-skinny sqlalchemy alembic wandb
export PYTHONPATH="$PWD/.venvs/trackers${PYTHONPATH:+:$PYTHONPATH}" DFT_TEST_TRACKERS=1
exec .venv/bin/python -m pytest tests/trackers "$@"
