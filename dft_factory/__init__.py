"""Dynamic Fine-Tuning (DFT) for LLaMA-Factory."""

__version__ = "0.1.0"
