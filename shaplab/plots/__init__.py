"""Plots of explanations, through one door: ``shaplab.plots.<name>(explanation, ..., ax=None)``.

One row: ``waterfall``, ``force``, and ``compare`` for one row explained several times. A table of
rows: ``bar`` (of cohorts, too), ``beeswarm``, ``violin``, ``summary`` (bar and beeswarm),
``heatmap``, ``decision``, ``embedding``. One feature: ``scatter``, ``partial_dependence``; a pair:
``interaction``; the strongest pairs and larger subsets: ``interaction_bars``, and
``interaction_network`` for pairs. Pictures: ``images``, and
``regions`` of one. Texts: ``text``.
``table`` says what any of them shows in words and numbers, for readers who cannot see a plot.

A plot draws on ``ax``, or on a new figure of its own, and returns the Axes; what has several panels
takes as many Axes and returns their Figure. A new figure has an opaque white background and dark
text whatever the style in use, so it can be read on a dark page too. Colours are safe for
colour-blind readers: orange raises the output, blue lowers it, dark to light is a feature's low to
high value, columns of text have a legend or are grey, and purple rings are missing values. Standard
errors are drawn where the explanation has them. Names are cut when long and never read as formulas.
Nothing of the user's is changed: no plot setting, no random state, no ``plt.show``.
"""

from shaplab.plots._features import bar, beeswarm, force, scatter, table, waterfall
from shaplab.plots._lines import decision, violin
from shaplab.plots._overviews import (
    compare,
    embedding,
    heatmap,
    images,
    interaction,
    partial_dependence,
    summary,
)
from shaplab.plots._regions import regions
from shaplab.plots._subsets import interaction_bars, interaction_network
from shaplab.plots._texts import text

__all__ = [
    "bar",
    "beeswarm",
    "compare",
    "decision",
    "embedding",
    "force",
    "heatmap",
    "images",
    "interaction",
    "interaction_bars",
    "interaction_network",
    "partial_dependence",
    "regions",
    "scatter",
    "summary",
    "table",
    "text",
    "violin",
    "waterfall",
]


def __dir__() -> list[str]:
    """Completion shows the plots and nothing else."""
    return __all__
