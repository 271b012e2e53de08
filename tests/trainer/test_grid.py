"""Roads to tokens: the scalar formula, clamping, and the golden map."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainer.data.roadmap import read_road_map
from trainer.errors import BadInput, TeacherMismatch
from trainer.grid import Bounds, Grid, map_roads


def scalar_token(grid: Grid, lng: float, lat: float) -> tuple[int, bool]:
    """The contract's formula for one centre, and whether it had to be clamped."""
    row = math.floor((lat - grid.min_lat) / grid.cell_lat) // grid.downsample
    column = math.floor((lng - grid.min_lng) / grid.cell_lng) // grid.downsample
    kept = min(max(row, 0), grid.rows - 1), min(max(column, 0), grid.columns - 1)
    return kept[0] * grid.columns + kept[1], kept != (row, column)


@settings(deadline=None, max_examples=150, database=None)
@given(
    st.integers(0, 2**32),
    st.floats(0.003, 0.9),
    st.floats(0.003, 0.9),
    st.integers(1, 5),
    st.integers(0, 8),
)
def test_tokens_of_an_existing_grid(seed: int, cell_lat: float, cell_lng: float, downsample: int, strays: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = (max((math.floor(1.5 / cell) + 1) // downsample, 1) for cell in (cell_lat, cell_lng))
    grid = Grid(40.0, 41.5, -3.0, -1.5, cell_lat, cell_lng, rows, columns, downsample)
    inside = rng.uniform((-3, 40), (-3 + columns * downsample * cell_lng, 40 + rows * downsample * cell_lat), (600, 2))
    outside = rng.uniform((-5, 38), (3, 45), (strays, 2))
    centres = rng.permutation(np.concatenate([inside, outside]))
    expected = [scalar_token(grid, lng, lat) for lng, lat in centres.tolist()]
    clamped = sum(moved for _, moved in expected)
    if clamped > 0.01 * len(centres):
        with pytest.raises(TeacherMismatch, match=rf"{clamped} of {len(centres)} roads lie outside"):
            map_roads(grid, centres)
        return
    found = map_roads(grid, centres)
    assert found.road_to_token.dtype == np.int32
    assert found.road_to_token.tolist() == [token for token, _ in expected]
    assert found.clamped == clamped
    assert found.road_to_token.max() < grid.cells


@pytest.mark.parametrize(("strays", "fine"), [(0, True), (1, True), (2, True), (3, False)])
def test_more_than_one_percent_outside_is_an_error(strays: int, fine: bool) -> None:
    grid = Grid(0.0, 1.0, 0.0, 1.0, 0.1, 0.1, 11, 11)
    centres = np.full((200, 2), 0.55)
    centres[:strays] = [5.0, 0.25]
    if fine:
        found = map_roads(grid, centres)
        assert found.clamped == strays
        assert found.road_to_token.tolist() == [2 * 11 + 10] * strays + [5 * 11 + 5] * (200 - strays)
    else:
        with pytest.raises(TeacherMismatch) as caught:
            map_roads(grid, centres)
        for said in ("3 of 200", "11 x 11 cells of 0.1 x 0.1 degrees", "lng 0.550000..5.000000"):
            assert said in str(caught.value)


@settings(deadline=None, max_examples=100, database=None)
@given(
    st.lists(st.tuples(st.floats(-170, 170), st.floats(-80, 80)), min_size=2, max_size=9),
    st.floats(0.01, 3.0),
    st.integers(1, 4),
)
def test_a_new_grid_over_all_points(points: list[tuple[float, float]], cell: float, downsample: int) -> None:
    lngs, lats = zip(*points, strict=True)
    assume(max(lngs) > min(lngs) and max(lats) > min(lats))
    grid = Grid.over(np.array(points), cell, downsample)
    assert (grid.min_lng, grid.max_lng, grid.min_lat, grid.max_lat) == (min(lngs), max(lngs), min(lats), max(lats))
    assert grid.rows == max((math.floor((max(lats) - min(lats)) / cell) + 1) // downsample, 1)
    assert grid.columns == max((math.floor((max(lngs) - min(lngs)) / cell) + 1) // downsample, 1)
    assert (grid.cell_lat, grid.cell_lng, grid.downsample) == (cell, cell, downsample)
    if downsample == 1:
        assert map_roads(grid, np.array(points)).clamped == 0


def test_the_published_size_of_beijing() -> None:
    """205 x 252 cells, vocabulary 51,663 (contract); a span of 0.2042 x 0.2515 degrees at 0.001."""
    grid = Grid.over(np.zeros((0, 2)), 0.001, bounds=Bounds(39.8, 40.0042, 116.25, 116.5015))
    assert (grid.rows, grid.columns, grid.cells + 3) == (205, 252, 51_663)


def test_golden_tokens(golden: Path, core_data: Path) -> None:
    expected = json.loads((golden / "grid.json").read_text())
    road_map, _ = read_road_map(core_data)
    grid = Grid.over(road_map.points, expected["cell_deg"])
    for name in ("min_lat", "min_lng", "max_lat", "max_lng", "rows"):
        assert getattr(grid, name) == expected[name], name
    assert grid.columns == expected["cols"]
    assert [grid.cells, grid.cells + 1, grid.cells + 2] == [expected[name] for name in ("pad", "eot", "sot")]
    found = map_roads(grid, road_map.centres)
    assert found.clamped == 0
    assert found.road_to_token.tolist() == expected["road_to_token"]


def test_another_rule_for_centres_is_a_mismatch() -> None:
    grid = Grid(0.0, 1.0, 0.0, 1.0, 0.1, 0.1, 11, 11, centroid_rule="vertex-mean")
    with pytest.raises(TeacherMismatch, match="'vertex-mean', this trainer by 'length-weighted'"):
        map_roads(grid, np.full((3, 2), 0.5))


@pytest.mark.parametrize("cell", [0.0, -1.0, math.nan, math.inf])
def test_a_cell_has_a_size(cell: float) -> None:
    with pytest.raises(BadInput, match="positive number of degrees"):
        Grid.over(np.array([[0.0, 0.0], [1.0, 1.0]]), cell)


@pytest.mark.parametrize("cell", [1e-5, 1e-9, 1e-320])
def test_tokens_must_fit_into_32_bits(cell: float) -> None:
    with pytest.raises(BadInput, match="are too small"):
        Grid.over(np.array([[0.0, 0.0], [1.0, 1.0]]), cell)


@pytest.mark.parametrize("bounds", [(1, 0, 1, 2), (1, 3, 2, 2), (math.nan, 0, 1, 1), (0, 0, math.inf, 1)])
def test_bounds_have_an_area(bounds: tuple[float, float, float, float]) -> None:
    with pytest.raises(BadInput, match="bounds must be MIN_LAT,MAX_LAT,MIN_LNG,MAX_LNG"):
        Bounds(*bounds)
    with pytest.raises(BadInput, match="downsample must be at least 1"):
        Grid.over(np.array([[0.0, 0.0], [1.0, 1.0]]), 0.1, 0)
