"""Training data: published records in, LLaMA-Factory data sets out. Nothing here imports torch."""
