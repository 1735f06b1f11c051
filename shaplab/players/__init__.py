"""Players that are no columns: rows of training data, words, regions of pictures."""
