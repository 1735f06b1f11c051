from itertools import product

import numpy as np
import pytest
from scipy.ndimage import label

from shaplab import GroupedGame, estimate_values, owen_values, plots, shapley_values
from shaplab.foundations.orderings import sampled_values
from shaplab.foundations.structures import owen_values_literal
from shaplab.players.regions import (
    RegionGame,
    grid_regions,
    harmonic_fill,
    quadtree_unions,
    segment_regions,
)


def picture(channels=2, height=5, width=6, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, height, width))


def weigh(pictures):
    """A number that knows each pixel, its place and its right neighbour; two outputs."""
    x = np.asarray(pictures, dtype=float)
    place = np.arange(1.0, 1.0 + x[0].size).reshape(x[0].shape)
    lone = (x * place).sum(axis=(1, 2, 3))
    beside = (x[..., 1:] * x[..., :-1]).sum(axis=(1, 2, 3))
    return np.stack([lone + 20.0 * beside, np.maximum(lone, 0.0)], axis=1)


ODD = np.array(
    [
        [3, 3, 3, 7, 7, -1],
        [3, 3, 7, 7, 7, -1],
        [0, 3, 7, 9, 9, 9],
        [0, 0, 0, 9, 7, 9],
        [0, 0, 0, 9, 9, 9],
    ]
)
EVERY = np.array(list(product([False, True], repeat=4)))


def literal(image, regions, labels, present, fill):
    """What the model sees, pixel by pixel; ``fill(channel, shown)`` paints one channel."""
    shown = np.zeros(regions.shape, dtype=bool)
    for row, column in np.ndindex(regions.shape):
        number = regions[row, column]
        shown[row, column] = number < 0 or present[labels.index(number)]
    seen = np.empty_like(image)
    for channel in range(len(image)):
        painted = fill(channel, shown)
        for row, column in np.ndindex(regions.shape):
            here = image[channel] if shown[row, column] else painted
            seen[channel, row, column] = here[row, column]
    return seen


def harmonic_fill_literal(image: np.ndarray, present: np.ndarray, sweeps: int) -> np.ndarray:
    """Absent pixels of one channel ``(H, W)`` as means of their neighbours, one after the other,
    over and over."""
    height, width = image.shape
    filled = np.where(present, image, image[present].mean())
    for _ in range(sweeps):
        for row in range(height):
            for column in range(width):
                if present[row, column]:
                    continue
                around = []
                for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                    if 0 <= row + down < height and 0 <= column + right < width:
                        around.append(filled[row + down, column + right])
                filled[row, column] = sum(around) / len(around)
    return filled


def gaussian_by_hand(channel, sigma):
    """Weights exp(-t^2 / 2 sigma^2) cut at four sigma, edges repeated, down and then across."""
    reach = int(4.0 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        size = channel.shape[axis]
        total = np.zeros_like(channel)
        for weight, step in zip(weights, range(-reach, reach + 1), strict=True):
            at = np.clip(np.arange(size) + step, 0, size - 1)
            total += weight * channel.take(at, axis=axis)
        channel = total
    return channel


@pytest.mark.parametrize("absent", ["blur", "mean", "inpaint", "number", "array"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_coalitions_are_the_pictures_they_say(absent, channels):
    image = picture(channels)
    other = picture(channels, seed=1)
    fills = {
        "blur": lambda c, shown: gaussian_by_hand(image[c], 6.0 / 8.0),
        "mean": lambda c, shown: np.full(shown.shape, image[c].mean()),
        "inpaint": lambda c, shown: harmonic_fill_literal(image[c], shown, 400),
        "number": lambda c, shown: np.full(shown.shape, -2.0),
        "array": lambda c, shown: other[c],
    }
    kind = {"number": -2.0, "array": other}.get(absent, absent)
    game = RegionGame(weigh, image, ODD, absent=kind, batch_size=3)
    assert game.names == ("region 0", "region 3", "region 7", "region 9")
    expected = [literal(image, ODD, [0, 3, 7, 9], S, fills[absent]) for S in EVERY]
    # Gauss-Seidel shrinks its error by a tenth or more in a sweep on so small a picture.
    assert np.allclose(game.pictures(EVERY), expected, atol=1e-10)
    # Weights up to 90 times 20 times pixels: errors of the pictures, a thousand times as large.
    assert np.allclose(game(EVERY), weigh(expected), atol=1e-6)


def test_present_pixels_are_untouched_to_the_last_bit():
    image = picture().astype(np.float32)
    for absent in ("blur", "mean", "inpaint", 0.5, -image):
        game = RegionGame(weigh, image, ODD, absent=absent)
        seen = game.pictures(EVERY)
        assert seen.dtype == np.float32
        for shown, present in zip(seen, EVERY, strict=True):
            stays = (ODD < 0) | present[game.player_of_pixel]
            assert np.array_equal(shown[:, stays], image[:, stays])
    assert np.array_equal(image, picture().astype(np.float32))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.97])
def test_a_filled_hole_is_harmonic_and_between_the_bounds_of_its_border(share):
    rng = np.random.default_rng(3)
    for _ in range(5):
        image = rng.normal(size=(2, 7, 9))
        present = rng.random((7, 9)) < share
        present[3, 4] = True
        filled = harmonic_fill(image, present)
        assert np.array_equal(filled[:, present], image[:, present])
        holes, count = label(~present)
        for number in range(1, count + 1):
            hole = holes == number
            border = np.zeros_like(hole)
            for row, column in np.argwhere(hole):
                for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                    y, x = row + down, column + right
                    if 0 <= y < 7 and 0 <= x < 9 and present[y, x]:
                        border[y, x] = True
            for channel in range(2):
                known = image[channel][border]
                inside = filled[channel][hole]
                # Rounding of a solve with condition below 10^4.
                assert known.min() - 1e-10 <= inside.min() <= inside.max() <= known.max() + 1e-10
        expected = [harmonic_fill_literal(channel, present, 1500) for channel in image]
        # The same, and what is left of the sweeps' error when few pixels are known.
        assert np.allclose(filled, expected, atol=1e-6)


def test_fills_that_are_known():
    # A ramp is harmonic between its ends; at the side a hole has nothing beyond.
    ramp = np.tile(np.arange(5.0), (1, 3, 1))
    present = np.zeros((3, 5), dtype=bool)
    present[:, [0, 4]] = True
    assert np.allclose(harmonic_fill(ramp + 0.0, present), ramp)
    present[:, 4] = False
    assert np.allclose(harmonic_fill(ramp, present), 0.0)
    assert np.array_equal(harmonic_fill(ramp, np.ones((3, 5), dtype=bool)), ramp)
    assert np.allclose(harmonic_fill(ramp, np.zeros((3, 5), dtype=bool)), 2.0)
    one = np.full((1, 1, 1), 3.0)
    assert harmonic_fill(one, np.array([[False]])).tolist() == [[[3.0]]]


def test_an_additive_model_has_values_that_are_known():
    image = picture(3, 16, 16)
    regions = grid_regions(16, 16, 8, 8)
    game = RegionGame(lambda x: x.sum(axis=(1, 2, 3)), image, regions, absent="mean")
    away = image - image.mean(axis=(1, 2), keepdims=True)
    truth = game.by_region(away)
    found = estimate_values(game, 64, max_evaluations=6 * 64, thresh=None, rng=0)
    # A game without interactions is known once each region has come and gone.
    assert np.allclose(found.values, truth, atol=1e-9)
    again = estimate_values(game, 64, max_evaluations=6 * 64, thresh=None, rng=0, batch_size=7)
    assert np.array_equal(found.values, again.values)


def test_a_game_of_region_means_is_estimated_with_the_error_it_says():
    """Means, and products of three neighbours: a third of each for its members, by hand."""
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(1, 16, 16))
    regions = grid_regions(16, 16, 8, 8)

    def means(x):
        return np.asarray(x)[:, 0].reshape(-1, 8, 2, 8, 2).mean(axis=(2, 4))

    def threes(x):
        tile = means(x)
        together = tile[:, :, 2:] * tile[:, :, 1:-1] * tile[:, :, :-2]
        return tile.sum(axis=(1, 2)) + together.sum(axis=(1, 2))

    game = RegionGame(threes, image, regions, absent=0.0)
    tile = means(image[None])[0]
    thirds = tile[:, 2:] * tile[:, 1:-1] * tile[:, :-2] / 3.0
    truth = tile.copy()
    for start in range(3):
        truth[:, start : start + 6] += thirds
    truth = truth.ravel()
    found = estimate_values(game, 64, max_evaluations=60 * 64, thresh=None, rng=0)
    error = found.values - truth
    # Measured over three seeds: 0.008 of the spread, and 0.017 at 20 evaluations a region.
    assert np.sqrt(np.mean(error**2)) < 0.02 * np.ptp(truth)
    assert (np.abs(error) < 5 * found.std).all()


def test_enumeration_owen_values_and_groups_go_through_the_usual_functions():
    image = picture(1, 8, 8)
    regions = grid_regions(8, 8, 3, 3)
    game = RegionGame(lambda x: weigh(x)[:, 0], image, regions, absent="inpaint")
    unions = quadtree_unions(regions)
    assert unions == [[0, 1, 3, 4], [2, 5], [6, 7], 8]
    exact = shapley_values(game, 9)
    assert np.allclose(estimate_values(game, 9, rng=0).values, exact)
    owen = owen_values(game, unions)
    blocks = [[0, 1, 3, 4], [2, 5], [6, 7], [8]]
    of_blocks = shapley_values(GroupedGame(game, blocks), 4)
    assert np.allclose(of_blocks, [owen[block].sum() for block in blocks])
    small = RegionGame(lambda x: weigh(x)[:, 0], image, grid_regions(8, 8, 2, 2), absent="blur")
    assert np.allclose(
        owen_values(small, [[0, 1], [2, 3]]), owen_values_literal(small, [[0, 1], [2, 3]])
    )
    sampled = sampled_values(game, 9, unions=unions, max_evaluations=4000, rng=0)
    # Five standard errors.
    assert (np.abs(sampled.values - owen) <= 5 * sampled.std + 1e-9).all()


def leaves(unions):
    if not isinstance(unions, list):
        return [unions]
    return [player for part in unions for player in leaves(part)]


@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (1, 2), (2, 2), (1, 7), (4, 4), (5, 3), (8, 8), (6, 11), (16, 16)]
)
def test_a_quadtree_is_a_partition_into_nested_blocks(rows, columns):
    regions = grid_regions(3 * rows, 2 * columns, rows, columns)
    unions = quadtree_unions(regions)
    assert sorted(leaves(unions)) == list(range(rows * columns))
    assert unions == quadtree_unions(np.arange(rows * columns).reshape(rows, columns))

    def check(part):
        """A union holds two to four parts; its players fill a rectangle."""
        if not isinstance(part, list):
            return
        assert 2 <= len(part) <= 4
        inside = np.isin(np.arange(rows * columns).reshape(rows, columns), leaves(part))
        assert inside.any(axis=1).sum() * inside.any(axis=0).sum() == inside.sum()
        for inner in part:
            check(inner)

    assert len(unions) <= 4
    for part in unions:
        check(part)


def test_quadtrees_of_numbers_with_gaps_name_players():
    assert quadtree_unions([[5, 10, 15], [20, 25, 30]]) == [[0, 1, 3, 4], [2, 5]]


def test_grids():
    assert grid_regions(3, 5, 2, 2).tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [2, 2, 2, 3, 3]]
    for height, width, rows, columns in ((28, 28, 4, 4), (7, 9, 3, 4), (5, 5, 5, 5), (10, 3, 7, 1)):
        grid = grid_regions(height, width, rows, columns)
        sizes = np.bincount(grid.ravel())
        assert len(sizes) == rows * columns and sizes.min() > 0
        down, across = -(-height // rows), -(-width // columns)
        assert sizes.max() <= down * across


@pytest.mark.parametrize("kind", ["random", "flat", "halves", "stripes", "wide"])
@pytest.mark.parametrize("count", [1, 2, 5, 16, 40])
def test_segments_hang_together_and_are_deterministic(kind, count):
    image = {
        "random": picture(3, 12, 15),
        "flat": np.full((1, 12, 15), 0.3),
        "halves": np.tile(np.arange(15) > 7, (1, 12, 1)).astype(float),
        "stripes": np.tile(np.arange(15) % 2, (2, 12, 1)).astype(float),
        "wide": picture(1, 2, 60),
    }[kind]
    found = segment_regions(image, count)
    assert np.array_equal(found, segment_regions(image.copy(), count))
    assert found.shape == image.shape[1:]
    labels = np.unique(found)
    assert labels.tolist() == list(range(len(labels))) and len(labels) <= count
    for number in labels:
        assert label(found == number)[1] == 1
    if kind == "flat":
        assert len(labels) == count


def test_segments_follow_colours():
    image = np.tile(np.arange(20) > 12, (1, 20, 1)).astype(float)
    found = segment_regions(image, 4, compactness=0.3)
    dark = np.unique(found[:, :13])
    assert not np.isin(found[:, 13:], dark).any()


def test_tensors_come_to_the_model_and_arrays_to_functions():
    torch = pytest.importorskip("torch")
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    regions = grid_regions(8, 8, 2, 2)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(108, 2)
    )
    with pytest.raises(ValueError, match=r"model: expected a network in evaluation.*model\.eval"):
        RegionGame(net, image, regions)
    net.eval()
    with pytest.raises(TypeError, match=r"image: expected a tensor.*torch.tensor"):
        RegionGame(net, image.numpy(), regions)
    game = RegionGame(net, image, regions, absent=torch.zeros(1, 8, 8))
    seen = game.pictures(EVERY)
    assert isinstance(seen, torch.Tensor) and seen.dtype == image.dtype
    ends = game(EVERY[[0, -1]])
    with torch.no_grad():
        # Float32, whose rounding differs between batches of one and of two.
        assert np.allclose(ends[1], net(image[None])[0].numpy(), atol=1e-6)
        assert np.allclose(ends[0], net(torch.zeros(1, 1, 8, 8))[0].numpy(), atol=1e-6)
    values = shapley_values(game, 4)
    # Outputs in float32.
    assert np.allclose(values.sum(axis=0), ends[1] - ends[0], atol=1e-6)
    exact = RegionGame(lambda x: x.sum(dim=(1, 2, 3)), image.double(), regions, absent="inpaint")
    assert exact.pictures(EVERY).dtype == torch.float64
    from shaplab import deep_shap

    pixels = deep_shap(net, image[None], torch.zeros(1, 1, 8, 8)).values[0]
    summed = game.by_region(pixels)
    assert summed.shape == (4, 2)
    assert np.allclose(summed.sum(axis=0), ends[1] - ends[0], atol=1e-5)


@pytest.mark.parametrize("absent", ["blur", "mean", "inpaint", 0.0])
def test_no_coalitions_have_no_outputs_of_the_usual_shape(absent):
    game = RegionGame(weigh, picture(), ODD, absent=absent)
    nobody = np.zeros((0, 4), dtype=bool)
    assert game(nobody).shape == (0, 2)
    assert game.pictures(nobody).shape == (0, 2, 5, 6)


def test_sums_over_regions():
    game = RegionGame(weigh, picture(), ODD)
    flat = np.arange(30.0).reshape(5, 6)
    expected = [flat[number == ODD].sum() for number in (0, 3, 7, 9)]
    assert game.by_region(flat).tolist() == expected
    deep = np.stack([flat, 2 * flat])
    assert np.allclose(game.by_region(deep), 3 * np.array(expected))
    outputs = np.stack([deep, -deep], axis=-1)
    assert np.allclose(game.by_region(outputs)[:, 1], -3 * np.array(expected))
    with pytest.raises(ValueError, match=r"pixel_values: expected shape \(5, 6\) or \(2, 5, 6\)"):
        game.by_region(flat.T)


def test_the_plot_and_what_it_tells():
    image = picture()
    game = RegionGame(weigh, image, ODD, absent="mean", names=list("abcd"))
    values = shapley_values(game, 4)
    explained = game.explanation(values, std=np.abs(values) / 10)
    assert explained.method == "regions (mean)"
    assert np.allclose(explained.prediction[0], game(np.ones((1, 4), dtype=bool))[0])
    for shown in (image, image.transpose(1, 2, 0), image[0]):
        ax = plots.regions(explained, shown, ODD, output=1, numbers=True)
        told = plots.table(ax)
        assert told["region"].tolist() == list("abcd")
        assert told["pixels"].tolist() == [7, 6, 7, 8]
        assert np.allclose(told["contribution"], values[:, 1])
        assert np.allclose(told["standard error"], np.abs(values[:, 1]) / 10)
        for number, row, column in zip(
            (0, 3, 7, 9), told["middle row"], told["middle column"], strict=True
        ):
            rows, columns = np.nonzero(number == ODD)
            assert np.allclose([row, column], [rows.mean(), columns.mean()])
        assert len(ax.texts) == 4
    drawn = ax.images[0].get_array()
    for number, value in zip((0, 3, 7, 9), values[:, 1], strict=True):
        redder = drawn[number == ODD][:, 0] - drawn[number == ODD][:, 2]
        assert (redder * value > 0.0).all()
    # Grey, up to the scale's 256 steps, none of which is its very middle.
    assert np.allclose(drawn[ODD < 0], drawn[ODD < 0][:, :1], atol=0.01)
    walls = {tuple(map(tuple, wall)) for wall in ax.collections[0].get_segments()}
    for row, column in np.ndindex(5, 5):
        parts = ODD[row, column] != ODD[row, column + 1]
        assert (((column + 0.5, row - 0.5), (column + 0.5, row + 0.5)) in walls) == parts
    plots.regions(game.explanation(np.zeros((4, 2))), image, ODD, output=0)
    with pytest.raises(ValueError, match=r"values: expected shape \(4, 2\)"):
        game.explanation(np.zeros(4))
    with pytest.raises(ValueError, match="regions: expected 4 numbers"):
        plots.regions(explained, image, ODD % 2, output=0)
    with pytest.raises(ValueError, match=r"image: expected a picture \(5, 6\)"):
        plots.regions(explained, image[:, :4], ODD, output=0)
    with pytest.raises(ValueError, match="limit"):
        plots.regions(explained, image, ODD, output=0, limit=0.0)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"model": "net"}, TypeError, "model: expected"),
        ({"image": np.ones((5, 6))}, ValueError, r"image: expected one picture.*image\[None\]"),
        ({"image": np.ones((1, 2, 5, 6))}, ValueError, "image: expected one picture"),
        (
            {"image": np.ones((1, 5, 6), dtype=np.uint8)},
            ValueError,
            "image: .*whole numbers floats",
        ),
        ({"image": np.full((1, 5, 6), np.nan)}, ValueError, "image: .*finite"),
        (
            {"image": np.ones((5, 6, 3))},
            ValueError,
            r"regions: expected .*\(6, 3\).*channels of image come first",
        ),
        ({"image": None}, ValueError, "image: expected one picture"),
        ({"regions": ODD.T}, ValueError, "regions: expected whole numbers"),
        ({"regions": ODD * 1.0}, ValueError, "regions: expected whole numbers"),
        ({"regions": np.full((5, 6), -1)}, ValueError, "regions: expected .*some from 0 up"),
        ({"regions": "grid"}, TypeError, "regions: expected whole numbers"),
        ({"absent": "noise"}, ValueError, "absent: expected one of 'blur', 'mean', 'inpaint'"),
        ({"absent": np.ones((5, 6))}, ValueError, r"absent: expected shape \(2, 5, 6\)"),
        ({"absent": np.nan}, ValueError, "absent: .*NaN"),
        ({"absent": None}, TypeError, "absent: expected"),
        ({"names": ["a"]}, ValueError, "names: expected 4 names"),
        ({"batch_size": 0}, ValueError, "batch_size: expected"),
    ],
)
def test_bad_input_is_named(change, error, match):
    given = {"model": weigh, "image": picture(), "regions": ODD} | change
    with pytest.raises(error, match=match):
        RegionGame(given.pop("model"), given.pop("image"), given.pop("regions"), **given)


def test_bad_outputs_coalitions_and_counts_are_named():
    everybody = np.ones((2, 4), dtype=bool)
    with pytest.raises(ValueError, match=r"model: expected outputs of shape \(2,\)"):
        RegionGame(lambda x: x.sum(), picture(), ODD)(everybody)
    with pytest.raises(ValueError, match="model: expected finite outputs"):
        RegionGame(lambda x: np.full(len(x), np.nan), picture(), ODD)(everybody)
    with pytest.raises(ValueError, match="coalitions: expected"):
        RegionGame(weigh, picture(), ODD)(everybody[:, :3])
    with pytest.raises(ValueError, match="rows: expected an integer >= 1 and <= 4"):
        grid_regions(4, 4, 5, 1)
    with pytest.raises(TypeError, match="columns: expected"):
        grid_regions(4, 4, 1, 2.0)
    with pytest.raises(ValueError, match=r"n_regions: expected .* <= 30"):
        segment_regions(picture(), 31)
    with pytest.raises(ValueError, match="compactness: expected"):
        segment_regions(picture(), 3, compactness=0.0)
    for bad in (ODD, [[0, 0], [0, 1]], [[-1, 0]], [0, 1], [[0.5]], "grid"):
        with pytest.raises((ValueError, TypeError), match="regions_grid: expected a grid"):
            quadtree_unions(bad)
