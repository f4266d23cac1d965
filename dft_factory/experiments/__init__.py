"""Experiments: one declarative YAML file from data and models to a report, run by Snakemake."""
