"""Outliers move as they should, stay in the grid, and always differ from the trip they come from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_server.evaluate.outliers import SETTINGS, OutlierSetting, detour, make_outliers, route_switch
from teacher_server.fit.tokens import Cells, Trips
from teacher_server.vocabulary import Grid
from tests.teacher_server.token_folders import GRID, walks

cells = st.lists(st.integers(0, GRID.cells - 1), min_size=3, max_size=40).map(lambda t: np.array(t, np.int32))


def steps(before: Cells, after: Cells) -> list[tuple[int, int]]:
    """(rows, columns) that each token moved."""
    rows = after // GRID.columns - before // GRID.columns
    columns = after % GRID.columns - before % GRID.columns
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def in_one_of_8_directions(step: tuple[int, int], level: int) -> bool:
    return step != (0, 0) and set(map(abs, step)) <= {0, level}


@given(cells, st.sampled_from([1, 3, 5]), st.floats(0.05, 1), st.integers(0, 1000))
def test_route_switch(trip: Cells, level: int, share: float, seed: int) -> None:
    before = trip.copy()
    after = route_switch(trip, GRID, level, share, np.random.default_rng(seed))
    assert np.array_equal(trip, before)
    assert (after[0], after[-1]) == (trip[0], trip[-1])
    assert ((after >= 0) & (after < GRID.cells)).all()
    assert all(step == (0, 0) or in_one_of_8_directions(step, level) for step in steps(trip, after))


@given(cells, st.sampled_from([1, 3, 5]), st.floats(0.05, 1), st.integers(0, 1000))
def test_detour(trip: Cells, level: int, share: float, seed: int) -> None:
    after = detour(trip, GRID, level, share, np.random.default_rng(seed))
    assert (after[0], after[-1]) == (trip[0], trip[-1])
    moved = [(i, step) for i, step in enumerate(steps(trip, after)) if step != (0, 0)]
    if moved:  # the stretch may be too wide for the grid in every direction
        places = [i for i, _ in moved]
        assert places == list(range(places[0], places[-1] + 1))
        assert len(places) == min(max(1, round(share * len(trip))), len(trip) - 2)
        assert len({step for _, step in moved}) == 1
        assert in_one_of_8_directions(moved[0][1], level)


def test_how_many_tokens_move_and_where_to() -> None:
    """In the middle of the grid, tokens move as often as asked, in all 8 directions alike."""
    trip = np.full(20_002, 5 * GRID.columns + 6, np.int32)
    after = route_switch(trip, GRID, 3, 0.3, np.random.default_rng(0))
    moved = [step for step in steps(trip, after) if step != (0, 0)]
    assert len(moved) / 20_000 == pytest.approx(0.3, abs=0.01)
    shares = [moved.count(step) / len(moved) for step in set(moved)]
    assert len(shares) == 8
    assert all(share == pytest.approx(1 / 8, abs=0.02) for share in shares)


def test_a_detour_can_lie_anywhere_between_the_ends() -> None:
    trip = np.full(8, 5 * GRID.columns + 6, np.int32)
    generator = np.random.default_rng(0)
    starts = {int(np.flatnonzero(detour(trip, GRID, 3, 0.3, generator) != trip)[0]) for _ in range(200)}
    assert starts == {1, 2, 3, 4, 5}


@settings(max_examples=20)
@given(st.sampled_from(SETTINGS), st.integers(0, 50))
def test_the_wanted_share_of_trips_really_changes(setting: OutlierSetting, seed: int) -> None:
    trips = Trips.of([np.array(trip, np.int32) for trip in walks(100, 3)])
    chosen, outliers = make_outliers(trips, GRID, setting, np.random.default_rng(seed))
    assert len(chosen) == len(outliers) == 5
    assert sorted(set(chosen.tolist())) == chosen.tolist()
    for trip, altered in zip(chosen, outliers, strict=True):
        assert len(altered) == len(trips[trip])
        assert not np.array_equal(altered, trips[trip])
    again = make_outliers(trips, GRID, setting, np.random.default_rng(seed))
    assert (again[0].tolist(), again[1].tokens.tolist()) == (chosen.tolist(), outliers.tokens.tolist())


def test_where_nothing_can_move() -> None:
    setting = OutlierSetting("detour", 3, 0.1)
    tiny = Grid(0.0, 0.15, 0.0, 0.15, 0.1, 0.1, 2, 2)
    still = Trips.of([np.array([0, 1, 3, 2], np.int32)] * 40)
    with pytest.raises(ValueError, match="only 0 of 40 trips can be altered, 2 are needed"):
        make_outliers(still, tiny, setting, np.random.default_rng(0))
    short = Trips.of([np.array([0, 1], np.int32)] * 20)
    with pytest.raises(ValueError, match="only 0 of 20"):
        make_outliers(short, GRID, setting, np.random.default_rng(0))


def test_the_settings_of_the_contract() -> None:
    assert [(s.kind, s.level, s.share) for s in SETTINGS] == [
        (kind, level, share) for kind in ("route_switch", "detour") for level, share in ((3, 0.1), (3, 0.3), (5, 0.1))
    ]
