"""MultiPL-E: its problems, and their pass@1 in eight languages."""
