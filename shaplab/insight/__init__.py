"""From many local explanations to a view of the whole: people, deployed models, and grades for
methods."""
