"""These tests start a SLURM cluster on this machine, as root: scripts/test_cluster.sh runs them."""

from __future__ import annotations

import os

if os.environ.get("DFT_TEST_CLUSTER") != "1":
    collect_ignore_glob = ["test_*.py"]
