"""Natural Questions, closed book: its questions, prompts, rules and scores."""
