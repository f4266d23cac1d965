"""These tests take minutes before they begin: scripts/test_distributed.sh runs them."""

from __future__ import annotations

import os

if os.environ.get("DFT_TEST_DISTRIBUTED") != "1":
    collect_ignore_glob = ["test_*.py"]
