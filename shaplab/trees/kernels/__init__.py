"""Compiled loops over trees: numeric arrays in, numeric arrays out."""
