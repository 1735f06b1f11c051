"""Owen and Winter values of trees: the plan for players who keep to families, beside the plans for
players who do not.

Chapter: trees/path_dependent, "Families of features".
"""

from __future__ import annotations

import numpy as np

from shaplab._parallel import chunks
from shaplab._validation import fail
from shaplab.trees._paths import Paths, exact_nodes, gauss_legendre
from shaplab.trees._plans import InterventionalPlan, Jobs, PathDependentPlan
from shaplab.trees._players import Players, hierarchy_of
from shaplab.trees.kernels.families import Hierarchy, add_family_values
from shaplab.trees.kernels.patterns import NO_BACKGROUND, Background

__all__ = ["FamilyPlan", "interventional_plan", "path_plan"]

_FAMILY_ROWS = 1024  # that one thread takes at a time


class FamilyPlan:
    """Values by leaf and pattern; stands where a plan of either game does.

    Attributes
    ----------
    walked, by_patterns : ``(T,)`` bool, for the count of trees that go this way.
    """

    table_bytes = 0

    def __init__(
        self, paths: Paths, hierarchy: Hierarchy, background: Background = NO_BACKGROUND
    ) -> None:
        widest = int(paths.arrays.tree_players.max(initial=1))
        rules = [gauss_legendre(int(exact_nodes(np.array(k + 1)))) for k in range(widest)]
        self.paths = paths
        self.hierarchy = hierarchy._replace(
            rule_start=np.append(0, np.cumsum([len(times) for times, _ in rules])),
            times=np.concatenate([times for times, _ in rules]),
            weights=np.concatenate([weights for _, weights in rules]),
        )
        self.background = background
        self.walked = np.ones(paths.trees.n_trees, bool)
        self.by_patterns = self.walked

    @property
    def plan(self) -> FamilyPlan:
        """Itself, as a prepared background names its plan."""
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of the background's rows."""
        return self.background.codes.nbytes

    def prepare(self, background: np.ndarray, weights: np.ndarray, jobs: Jobs) -> FamilyPlan:
        """The plan with background rows ``(d, R)`` and weights ``(R,)``."""
        del jobs  # nothing is counted beforehand
        rows = Background(background, weights, np.zeros((1, 1)))
        return FamilyPlan(self.paths, self.hierarchy, rows)

    def keep_tables(self, memory_limit: int, jobs: Jobs) -> None:
        """There are none."""

    def expected(self) -> np.ndarray:
        """Mean output of the background, ``(K,)``."""
        trees = self.paths.trees
        total = np.zeros(trees.n_outputs)
        for part in chunks(self.background.codes.shape[1], 65536):
            codes = np.ascontiguousarray(self.background.codes[:, part].T)
            total += self.background.weights[part] @ trees.predict_codes(codes)
        return total

    def sums(self, codes: np.ndarray, jobs: Jobs) -> np.ndarray:
        """Sums ``(n_targets, n)`` of encoded rows ``(d, n)``."""
        paths = self.paths
        sums = np.zeros((paths.n_targets(False), codes.shape[1]))

        def add_part(part: slice) -> None:
            rows = (part.start, part.stop)
            add_family_values(
                rows, paths.nodes, paths.arrays, codes, self.background, self.hierarchy, sums
            )

        jobs(add_part, list(chunks(codes.shape[1], _FAMILY_ROWS)))
        return sums


def path_plan(
    paths: Paths, players: Players, pairs: bool, n_rows: int, route: str
) -> PathDependentPlan | FamilyPlan:
    """The plan of the path-dependent game."""
    if players.unions is None:
        return PathDependentPlan(paths, pairs, n_rows, route)
    _check_families(pairs, route)
    return FamilyPlan(paths, hierarchy_of(players.unions, players.count))


def interventional_plan(
    paths: Paths, players: Players, pairs: bool, sizes: tuple[int, int], route: str
) -> InterventionalPlan | FamilyPlan:
    """The plan of the interventional game for so many rows and background rows."""
    if players.unions is None:
        return InterventionalPlan(paths, pairs, *sizes, route)
    _check_families(pairs, route)
    return FamilyPlan(paths, hierarchy_of(players.unions, players.count))


def _check_families(interactions: bool, route: str) -> None:
    """Families have one way, and no interactions."""
    if interactions:
        fail(
            "unions",
            "nothing beside interactions, which are those of players without families",
            "unions",
            "Leave unions= out, or take values",
        )
    if route != "auto":
        fail("route", "'auto' beside unions, which have one way", repr(route), "Leave it out")
