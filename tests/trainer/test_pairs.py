"""Cells, match rates and pairing against plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.test_distributions import make_trips
from trainer.errors import BadInput
from trainer.evaluate.cells import Cell, road_cells
from trainer.evaluate.pairs import EndCells, match_rates, pair_trips

ends = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=25)


def end_cells(pairs: list[tuple[int, int]]) -> EndCells:
    return EndCells(*np.array(pairs, dtype=np.int64).T)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("0.001", Cell(0.001, "degree")),
        ("1e-3", Cell(0.001, "degree")),
        ("200m", Cell(200.0, "metre")),
        (" 50 m ", Cell(50.0, "metre")),
        ("1e-6", Cell(1e-6, "degree")),
        ("90", Cell(90.0, "degree")),
        ("0.1m", Cell(0.1, "metre")),
        ("1e7m", Cell(1e7, "metre")),
    ],
)
def test_cell_sizes(text: str, cell: Cell) -> None:
    assert Cell.parse(text) == cell


OUT_OF_BOUNDS = ["1e-300", "1e300m", "9e-7", "90.1", "0.09m", "1.1e7m"]


@pytest.mark.parametrize(
    "text", ["", "m", "0", "-1", "0m", "200km", "nan", "1e999", "e", "1.2.3", "0x10", *OUT_OF_BOUNDS]
)
def test_bad_cell_sizes_are_named(text: str) -> None:
    with pytest.raises(BadInput, match="give its size in degrees") as error:
        Cell.parse(text)
    assert repr(text) in str(error.value)


def test_cells_of_degrees() -> None:
    centres = np.array([[10.0002, 50.0002], [10.0008, 50.0008], [10.0012, 50.0002], [10.0002, 50.0012], [-0.0005, 0.0]])
    cells = road_cells(centres, Cell(0.001)).tolist()
    assert cells[0] == cells[1]
    assert len(set(cells)) == 4
    assert sorted(set(cells)) == [0, 1, 2, 3]


@given(st.integers(-20, 20), st.integers(-20, 20))
def test_cells_of_metres_are_square_on_the_ground(column: int, row: int) -> None:
    metre = 1 / (math.radians(1) * 6371008.8)
    lat = 60.0  # there, a degree of longitude is half as long as one of latitude
    base = np.array([round(10 / (400 * metre)) * 400 * metre, round(lat / (200 * metre)) * 200 * metre])

    def at(east: float, north: float) -> list[float]:
        return [base[0] + east * metre / math.cos(math.radians(lat)), base[1] + north * metre]

    # The last point brings the mean latitude to 60 exactly enough.
    inner = np.array([at(200 * column + 60, 200 * row + 60), at(200 * column + 140, 200 * row + 140)])
    centres = np.concatenate([inner, [[base[0], 3 * lat - inner[:, 1].sum()]]])
    near, far, _ = road_cells(centres, Cell(200, "metre"))
    lng_cell = 200 * metre / math.cos(math.radians(lat))
    expected = [np.floor(point / [lng_cell, 200 * metre]).tolist() for point in inner]
    assert (near == far) == (expected[0] == expected[1])


def test_ends_of_trips() -> None:
    trips = make_trips([[(0, 0), (1, 1), (2, 1)], [(3, 0)], [(2, 0), (0, 5)]])
    cells = np.array([7, 8, 9, 6])
    found = EndCells.of(trips, cells)
    assert list(zip(found.origin, found.destination, strict=True)) == [(7, 9), (6, 6), (9, 7)]
    assert len(set(found.pairs().tolist())) == 3


@given(ends, ends)
def test_match_rates_equal_the_definition(generated: list[tuple[int, int]], real: list[tuple[int, int]]) -> None:
    rates = match_rates(end_cells(generated), end_cells(real))
    for name, mine, theirs in (
        ("od_pair_match_rate", generated, real),
        ("origin_match_rate", [o for o, _ in generated], [o for o, _ in real]),
        ("destination_match_rate", [d for _, d in generated], [d for _, d in real]),
    ):
        distinct = list(dict.fromkeys(mine))
        assert rates[name] == sum(each in theirs for each in distinct) / len(distinct)


def test_match_rates_by_hand() -> None:
    rates = match_rates(end_cells([(0, 1), (0, 1), (0, 2), (5, 1)]), end_cells([(0, 1), (3, 2), (0, 4)]))
    assert rates == {
        "od_pair_match_rate": pytest.approx(1 / 3),
        "origin_match_rate": pytest.approx(1 / 2),
        "destination_match_rate": pytest.approx(1.0),
    }


@given(ends, ends)
def test_the_ith_trip_of_a_pair_meets_the_ith(generated: list[tuple[int, int]], real: list[tuple[int, int]]) -> None:
    expected = []
    for pair in set(generated):
        mine = [i for i, ends in enumerate(generated) if ends == pair]
        theirs = [i for i, ends in enumerate(real) if ends == pair]
        expected += list(zip(mine, theirs, strict=False))
    assert list(map(tuple, pair_trips(end_cells(generated), end_cells(real)).tolist())) == sorted(expected)


def test_no_common_pair_gives_no_pairs() -> None:
    assert pair_trips(end_cells([(0, 1)]), end_cells([(1, 0)])).shape == (0, 2)
