"""Where DFT fails and where it should not: two experiments of our own on SmolLM2."""
