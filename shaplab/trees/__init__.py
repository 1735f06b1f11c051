"""Trees: one reader for every library, exact Shapley values of several named games, and their
speed."""
