"""Evaluation: benchmarks in, results with their uncertainty out. Imports nothing of dft_factory."""
