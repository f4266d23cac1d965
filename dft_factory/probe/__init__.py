"""Token probabilities of a training set under one or several models."""
