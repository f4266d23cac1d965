"""Servers that an evaluation starts and stops itself: vLLM, SGLang, or any command."""
