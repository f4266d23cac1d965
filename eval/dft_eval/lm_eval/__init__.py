"""EleutherAI's lm-evaluation-harness (the package ``lm-eval``): its tasks as benchmarks.

The harness asks the model and judges the answers itself, as it ships, in a process of its own. Its
scores and records of items are read into the result schema, where intervals and paired comparisons
are made of them as of all others.
"""
