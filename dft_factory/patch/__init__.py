"""How LLaMA-Factory is opened without touching its files. Importing this package imports nothing."""
