"""Shapley values propagated through networks, stacks of models and losses."""
