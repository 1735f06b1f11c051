"""Compiled loops over trees: numeric arrays in and out."""
