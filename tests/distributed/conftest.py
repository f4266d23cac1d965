"""These tests take minutes before they begin: scripts/test_distributed.sh runs them."""

from __future__ import annotations

import os

import pytest

if os.environ.get("DFT_TEST_DISTRIBUTED") == "1":
    # DeepSpeed reads them at import, which warm runs share: set before the first of them.
    os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def deepspeed_on_cpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a DeepSpeed run on CPUs.

    DeepSpeed compiles its shared-memory extension at the first start (about 100 s on an idle
    machine); it gets a folder of its own, so that a killed build can lock nobody else out.
    TORCH_EXTENSIONS_DIR, where it is set, names one in which it was compiled before.
    """
    extensions = os.environ.get("TORCH_EXTENSIONS_DIR")
    return {
        "TORCH_EXTENSIONS_DIR": extensions or str(tmp_path_factory.mktemp("extensions")),
        "RECORD_ZERO_ON_CPU": "1",
    }
