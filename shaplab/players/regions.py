r"""Regions of a picture as players: what is absent is painted over, and a model says what is left.

A picture has too many pixels to be players, and a single one means nothing. Regions are few. What
stands where a region is absent is a choice, and each choice is another game:

- ``"blur"``: the same place of a blurred copy, in which coarse shapes remain;
- ``"mean"``: the picture's mean colour, whose edges a model may take for shapes;
- ``"inpaint"``: a smooth surface spanned by the border of what is present: each absent pixel is the
  mean of its neighbours, :math:`4 u_p = \sum_{q \sim p} u_q` (fewer at the picture's edge). It is
  another one for each coalition;
- a number, or an array of the picture's shape: black, or another picture.

Cost: one picture through the model for each coalition; ``"inpaint"`` solves a sparse system of as
many unknowns as pixels are absent, besides.

Chapter: players/regions
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, label
from scipy.sparse import diags, kronsum
from scipy.sparse.linalg import splu

from shaplab._validation import (
    as_finite,
    as_numbers,
    check_choice,
    check_int,
    check_names,
    check_real,
    fail,
    has,
    plain,
)
from shaplab.foundations.games import check_coalitions
from shaplab.players._parts import PartsGame, sums_of_players

__all__ = ["RegionGame", "grid_regions", "harmonic_fill", "quadtree_unions", "segment_regions"]

FILLS = ("blur", "mean", "inpaint")
# Where a pixel's neighbours stand.
BESIDE = ((-1, 0), (1, 0), (0, -1), (0, 1))


def harmonic_fill(image: np.ndarray, present: np.ndarray) -> np.ndarray:
    """A picture whose absent pixels are the means of their neighbours.

    Parameters
    ----------
    image : float array ``(C, H, W)``.
    present : bool array ``(H, W)``; where none is true, the mean colour fills the picture.

    Returns
    -------
    float64 array ``(C, H, W)``: present pixels as they were, the others between the smallest and
    the largest value on the border of the hole that they stand in.
    """
    filled = np.array(image, dtype=np.float64)
    if present.all():
        return filled
    if not present.any():
        filled[:] = filled.mean(axis=(1, 2), keepdims=True)
        return filled
    absent = np.flatnonzero(~present)
    edges = _neighbours(present.shape)
    rows = edges[absent]
    # Every hole touches what is present, so the system has one solution.
    system = diags(np.asarray(rows.sum(axis=1)).ravel()) - rows[:, absent]
    flat = filled.reshape(len(filled), -1)
    border = rows[:, present.ravel()] @ flat[:, present.ravel()].T
    solver = splu(system.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    flat[:, absent] = solver.solve(border).T
    return filled


def _neighbours(shape: tuple[int, ...]) -> Any:
    """Which pixels touch, as a sparse matrix of 0 and 1 over pixels."""
    down, across = (np.eye(size, k=1) + np.eye(size, k=-1) for size in shape)
    return kronsum(across, down).tocsr()


class RegionGame(PartsGame):
    """The game of the regions of one picture, for any explaining function that takes a game.

    Called with coalitions ``(m, n_players)`` it returns the model's outputs ``(m,)`` or ``(m, K)``
    for the pictures in which only these regions are present, as float64.

    Parameters
    ----------
    model : callable of pictures ``(m, C, H, W)`` that returns ``(m,)`` or ``(m, K)``. It gets
        tensors, of the image's dtype and device, if ``image`` is a tensor, and else arrays. A torch
        module must be in evaluation mode, for which the same picture has one output.
    image : array or tensor ``(C, H, W)`` of finite floats, one channel or more, as the model takes
        it. It is not changed.
    regions : int array ``(H, W)``, a number for each region, such as :func:`grid_regions` and
        :func:`segment_regions` make, or any segmentation. Players are the numbers from 0 up that
        occur, in increasing order. Pixels with a negative number are always present.
    absent : "blur", "mean", "inpaint", a number, or an array or tensor ``(C, H, W)``, as above. The
        Gaussian that blurs has a standard deviation of an eighth of the longer side; for another,
        pass a copy that you have blurred.
    names : names of the regions; None: "region" and its number.
    batch_size : int, pictures in one call of the model; bounds memory.

    Attributes
    ----------
    names, n_players : of the regions.
    player_of_pixel : int array ``(H, W)``, the player that each pixel belongs to, -1 for none.

    Raises
    ------
    ValueError
        For pictures, regions and fillings whose shapes do not fit, pictures with NaN, a model in
        training mode, and outputs of another shape or with NaN.

    Notes
    -----
    ``explanation(values, std=None, method="")`` makes values of the regions an Explanation of one
    row, for ``plots.regions``.

    Examples
    --------
    >>> image = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    >>> quarters = grid_regions(2, 2, 2, 2)
    >>> game = RegionGame(lambda x: x.sum(axis=(1, 2, 3)), image, quarters, absent=0.0)
    >>> game(np.array([[True, False, False, True]]))
    array([5.])
    """

    kind = "regions"

    def __init__(
        self,
        model: Callable[..., Any],
        image: Any,
        regions: Any,
        *,
        absent: Any = "blur",
        names: Any = None,
        batch_size: int = 64,
    ) -> None:
        self.tensor = image if has(image, "detach", "cpu") else None
        super().__init__(model, batch_size, with_torch=self.tensor is not None)
        if self.tensor is None and has(model, "named_parameters", "state_dict"):
            remedy = "Pass torch.tensor(image), of the dtype of the network's weights"
            fail("image", "a tensor, which a torch module takes", image, remedy, TypeError)
        self.dtype = getattr(image, "dtype", np.float64)
        self.image = check_picture(image)
        self.player_of_pixel, labels = players_of_regions(regions, self.image.shape[1:])
        self.n_players = len(labels)
        given = check_names(names, self.n_players, "names")
        self.names = given or tuple(f"region {number}" for number in labels)
        self.absent = "array"
        if isinstance(absent, str):
            self.absent = check_choice(absent, "absent", FILLS)
        self.filling = self._filling(absent)

    def _filling(self, absent: Any) -> np.ndarray | None:
        """What absent pixels show; None if that depends on the present ones."""
        if self.absent == "blur":
            width = max(self.image.shape[1:]) / 8.0
            return gaussian_filter(self.image, (0.0, width, width), mode="nearest")
        if self.absent == "mean":
            return np.broadcast_to(self.image.mean(axis=(1, 2), keepdims=True), self.image.shape)
        if self.absent == "inpaint":
            return None
        shape = self.image.shape
        remedy = "Pass a picture like image, or one of 'blur', 'mean', 'inpaint', or a number"
        given = as_numbers(absent, "absent", f"shape {shape} of finite numbers", remedy)
        whole = np.full(shape, given) if given.ndim == 0 else given
        return as_finite(whole, "absent", shape, remedy)

    def shown(self, present: np.ndarray) -> tuple[Any, ...]:
        return (self.pictures(present),)

    def pictures(self, coalitions: Any) -> Any:
        """What the model sees of coalitions ``(m, n_players)``: array or tensor ``(m, C, H,
        W)``."""
        present = check_coalitions(coalitions, self.n_players)
        always = self.player_of_pixel < 0
        # Where no player stands, -1 picks the last one, which `always` overrules.
        seen = present[:, self.player_of_pixel] | always
        if self.filling is None:
            painted = np.array([harmonic_fill(self.image, shown) for shown in seen])
        else:
            painted = np.where(seen[:, None], self.image, self.filling)
        painted = painted.reshape(-1, *self.image.shape)
        if self.tensor is None:
            return painted.astype(self.dtype, copy=False)
        return self.torch.as_tensor(painted, dtype=self.dtype, device=self.tensor.device)

    def by_region(self, pixel_values: Any) -> np.ndarray:
        """Sums over the pixels and channels of each region, ``(n_players, ...)``, of what belongs
        to pixels ``(H, W, ...)`` or ``(C, H, W, ...)``: attributions of pixels, for one."""
        found = as_numbers(pixel_values, "pixel_values")
        size = self.player_of_pixel.shape
        if found.shape[:3] == self.image.shape:
            found = found.sum(axis=0)
        elif found.shape[:2] != size:
            fail(
                "pixel_values",
                f"shape {size} or {self.image.shape}, and outputs after it",
                f"shape {found.shape}",
                "Pass the attributions of one picture, such as explanation.values[0]",
            )
        return sums_of_players(found, self.player_of_pixel, self.n_players)


def check_picture(image: Any) -> np.ndarray:
    """Return a picture as a finite float64 array ``(C, H, W)``."""
    found = plain(image)
    kind = getattr(getattr(found, "dtype", None), "kind", "f")
    if kind != "f" or np.ndim(found) != 3 or 0 in np.shape(found):
        fail(
            "image",
            "one picture (C, H, W) of floats",
            image,
            "Make whole numbers floats, put channels first (transpose(2, 0, 1)), "
            "and give a grey picture one (image[None])",
        )
    return as_finite(found, "image", np.shape(found), "Fill in what is missing")


def players_of_regions(regions: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, list[int]]:
    """The player of each pixel, -1 for none, and the number that each player has in ``regions``."""
    rule = f"whole numbers of shape {shape}, one for each pixel of image, some from 0 up"
    remedy = (
        "Pass a number for each pixel, such as grid_regions(height, width, 4, 4); "
        "channels of image come first"
    )
    given = as_numbers(regions, "regions", rule, remedy, dtype=None)
    if given.dtype.kind not in "iu" or given.shape != shape or given.max() < 0:
        fail("regions", rule, given, remedy)
    labels, players = np.unique(given, return_inverse=True)
    # np.unique sorts: negative numbers come first.
    negative = int((labels < 0).sum())
    return np.maximum(players.reshape(shape) - negative, -1), labels[negative:].tolist()


def grid_regions(height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """Rectangles for regions, as equal as whole pixels allow.

    Parameters
    ----------
    height, width : int, pixels of the picture.
    rows, columns : int, how many rectangles down and across, at most one a pixel.

    Returns
    -------
    int array ``(height, width)`` of 0 to ``rows * columns - 1``, line by line.

    Examples
    --------
    >>> grid_regions(2, 4, 1, 2)
    array([[0, 0, 1, 1],
           [0, 0, 1, 1]])
    """
    height = check_int(height, "height")
    width = check_int(width, "width")
    rows = check_int(rows, "rows", maximum=height)
    columns = check_int(columns, "columns", maximum=width)
    across = np.arange(width) * columns // width
    return (np.arange(height) * rows // height)[:, None] * columns + across


def segment_regions(
    image: Any, n_regions: int, *, compactness: float = 1.0, rounds: int = 10
) -> np.ndarray:
    """Regions of like colour: k-means on colour and place, each in one piece.

    Parameters
    ----------
    image : array or tensor ``(C, H, W)`` of finite floats.
    n_regions : int, how many seeds are laid out, evenly; regions are as many or, where a seed finds
        no pixel nearest to it, fewer.
    compactness : float, how much place counts against colour. Distances of place are in units of
        the seeds' spacing, those of colour in units of the picture's standard deviation.
    rounds : int, how often seeds move to the middle of their region.

    Returns
    -------
    int array ``(H, W)`` of 0 up without gaps. Each region hangs together by the sides of its
    pixels. The same picture gives the same regions.

    Notes
    -----
    The idea is that of SLIC, over all seeds instead of those nearby: memory of one distance a pixel
    and time of ``rounds * n_regions`` passes over the picture. Splinters of a region that are not
    its largest piece go to the regions that grow into them.

    References
    ----------
    Achanta et al., "SLIC Superpixels Compared to State-of-the-art Superpixel Methods" (2012).
    """
    colours = check_picture(image)
    height, width = colours.shape[1:]
    count = check_int(n_regions, "n_regions", maximum=height * width)
    weight = check_real(compactness, "compactness", low=0.0, open_low=True)
    rounds = check_int(rounds, "rounds")
    spacing = np.sqrt(height * width / count)
    places = np.indices((height, width)) * (weight / spacing)
    # The deviation of equal numbers is not always 0, by rounding.
    unit = colours.std() if np.ptp(colours) > 0.0 else 1.0
    described = np.concatenate([colours / unit, places]).reshape(len(colours) + 2, -1)
    centres = described[:, _seeds(height, width, count)]
    for _ in range(rounds):
        nearest = _nearest(described, centres)
        sizes = np.bincount(nearest, minlength=centres.shape[1])
        for line, values in enumerate(described):
            sums = np.bincount(nearest, weights=values, minlength=len(sizes))
            # A seed without pixels stays where it is.
            centres[line] = np.where(sizes > 0, sums / np.maximum(sizes, 1), centres[line])
    found = _in_one_piece(_nearest(described, centres).reshape(height, width))
    return np.unique(found, return_inverse=True)[1].reshape(height, width)


def _seeds(height: int, width: int, count: int) -> np.ndarray:
    """Pixels spread evenly: lines of seeds, whose numbers differ by at most one."""
    lines = int(np.clip(round(np.sqrt(count * height / width)), max(1, -(-count // width)), height))
    ends = np.arange(lines + 1) * count // lines
    seeds = []
    for line, across in enumerate(np.diff(ends)):
        row = (2 * line + 1) * height // (2 * lines)
        columns = (2 * np.arange(across) + 1) * width // (2 * max(int(across), 1))
        seeds.append(row * width + columns)
    return np.concatenate(seeds)


def _nearest(described: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The first of the nearest centres ``(features, k)`` of each pixel ``(features, p)``."""
    best = np.full(described.shape[1], np.inf)
    nearest = np.zeros(described.shape[1], dtype=int)
    for number in range(centres.shape[1]):
        distance = ((described - centres[:, number, None]) ** 2).sum(axis=0)
        closer = distance < best
        best[closer] = distance[closer]
        nearest[closer] = number
    return nearest


def _in_one_piece(found: np.ndarray) -> np.ndarray:
    """The largest piece of each region; regions grow by a pixel at a time into the rest."""
    height, width = found.shape
    kept = np.full((height, width), -1)
    for number in np.unique(found):
        pieces, _ = label(found == number)
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0  # the other regions
        kept[pieces == sizes.argmax()] = number
    while (kept < 0).any():
        around = np.pad(kept, 1, constant_values=-1)
        for down, right in BESIDE:
            beside = around[1 + down : 1 + down + height, 1 + right : 1 + right + width]
            kept = np.where(kept < 0, beside, kept)
    return kept


def quadtree_unions(regions_grid: Any) -> list[Any]:
    """Nested unions of a grid: neighbours two by two, then these two by two, up to four.

    Parameters
    ----------
    regions_grid : int array, what :func:`grid_regions` returns, or one number for each rectangle of
        the grid, ``(rows, columns)``.

    Returns
    -------
    nested lists of players, for ``unions=`` of Owen and Winter values. With an odd number of rows
    or columns the last ones have fewer neighbours; one alone stands without a list.

    Examples
    --------
    >>> quadtree_unions(grid_regions(8, 8, 2, 4))
    [[0, 1, 4, 5], [2, 3, 6, 7]]
    """
    rule = "a grid, whose every rectangle has its own number from 0 up"
    remedy = "Pass what grid_regions returns"
    grid = as_numbers(regions_grid, "regions_grid", rule, remedy, dtype=None)
    if grid.dtype.kind not in "iu" or grid.ndim != 2 or grid.size == 0:
        fail("regions_grid", rule, grid, remedy)
    for axis in (0, 1):
        same = (np.diff(grid, axis=axis) == 0).all(axis=1 - axis)
        grid = np.compress(np.concatenate([[True], ~same]), grid, axis=axis)
    labels, players = np.unique(grid, return_inverse=True)
    if len(labels) != grid.size or labels[0] < 0:
        fail("regions_grid", rule, f"{len(labels)} numbers in {grid.size} rectangles", remedy)
    level: Any = players.reshape(grid.shape).tolist()
    while len(level) > 2 or len(level[0]) > 2:
        level = [
            [_block(level, row, column) for column in range(0, len(level[0]), 2)]
            for row in range(0, len(level), 2)
        ]
    return [member for line in level for member in line]


def _block(level: Any, row: int, column: int) -> Any:
    """A block of two by two, less at the edges; one alone is no union."""
    members = [member for line in level[row : row + 2] for member in line[column : column + 2]]
    return members if len(members) > 1 else members[0]
