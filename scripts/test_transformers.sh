#!/usr/bin/env bash
# The contract tests at both ends of the transformers range that pyproject.toml allows, against
# LLaMA-Factory 0.9.5. More words are handed to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for transformers in 4.57.1 5.8.0; do
  bash scripts/test_against.sh 0.9.5 "$transformers" "$@"
done
