"""Token-weighted losses in plain torch; nothing here knows of LLaMA-Factory."""
