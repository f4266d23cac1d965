#!/usr/bin/env bash
# ZeRO-3 on two CPU processes against one: minutes, most of them DeepSpeed compiling an extension.
# More words are handed to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Where it is set, every process compiles its imports anew: half a minute with LLaMA-Factory's.
unset PYTHONDONTWRITEBYTECODE
bash scripts/setup.sh
source .venv/bin/activate
DFT_TEST_DISTRIBUTED=1 exec pytest tests/distributed "$@"
