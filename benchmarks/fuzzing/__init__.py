"""What `fuzz_models.py` draws, and the oracles it compares with."""
