"""Mathematics benchmarks with a short final answer, and two rules for when answers are equal."""
