#!/usr/bin/env bash
# All hostile programs in containers (`--sandbox docker`), not part of the suite:
#   bash scripts/test_containers.sh [pytest arguments]
# Needs docker with its daemon, or podman: apt-get install podman runc fuse-overlayfs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export DFT_TEST_CONTAINERS=1
exec .venv/bin/python -m pytest tests/containers "$@"
