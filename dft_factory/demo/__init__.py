"""The demo: SFT and DFT twins through the stock command line, scored and compared.

Two ways: SmolLM2 on code, and a small Qwen2.5-VL on drawn pictures. Every stage says what it does,
and a second run reuses what is finished.
"""

from pathlib import Path

CONFIGS = Path("configs/demo")
