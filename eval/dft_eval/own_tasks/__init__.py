"""Benchmarks of the user's own: a YAML file with data, prompt and metric (docs/own-tasks.md)."""
