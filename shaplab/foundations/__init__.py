"""Games, exact Shapley values, interactions, and estimators for any model."""
