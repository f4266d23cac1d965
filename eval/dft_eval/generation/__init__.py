"""Prompts to completions, by transformers in this process or by an OpenAI-compatible server."""
