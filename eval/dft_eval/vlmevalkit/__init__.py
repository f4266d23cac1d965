"""VLMEvalKit (the package ``ms-vlmeval``): its data sets as benchmarks, ``vlmeval:DATASET``.

The harness asks the model and judges the answers itself, as it ships, in a process of its own
(``driver``). Its scores and records of items are read into the result schema, where intervals and
paired comparisons are made of them as of all others.

Only scorers that compare texts are run: multiple choice by exact matching, visual question
answering, OCRBench. Others ask a judge model, evaluate what the model wrote as Python, or keep no
score of items. Cells of the table (indices, lists of answers) are evaluated by all of them.
"""
