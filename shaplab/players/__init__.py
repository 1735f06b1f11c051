"""Players that are no columns: words, regions of pictures, rows of training data."""
