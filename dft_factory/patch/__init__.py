"""How LLaMA-Factory is opened without touching its files."""
