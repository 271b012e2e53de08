"""Bulk labelling against one step at a time: what is asked, how often, and where the answers go."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.datasets import random_map, random_walks
from tests.trainer.exact_teacher import BLOCK, CELLS, ExactTeacher, exact_log_probs, visible
from trainer.data.batches import collate
from trainer.data.city import City, Meta
from trainer.errors import TeacherUnavailable
from trainer.teacher import questions as questions_module
from trainer.teacher.label import Filling, unanswered_steps
from trainer.teacher.protocol import Answer, Query
from trainer.teacher.questions import Cells, TripQuestions, WindowQuestions
from trainer.teacher.subject import Subject

WINDOWS = st.sampled_from([0, 1, 2, 4, BLOCK - 1])


def random_city(seed: int, trips: int = 12, roads: int = 9) -> tuple[City, np.ndarray]:
    """A city with dead ends and steps without a choice, and a road-to-token map of few cells."""
    rng = np.random.default_rng(seed)
    road_map, _, _ = random_map(rng, roads, 2 * roads)
    walks = random_walks(rng, road_map, trips, longest=9)
    meta = Meta("f" * 64, ("a",), 0.0, 1.0, "derived", "derived", {})
    nothing = np.zeros(0)
    city = City(meta, road_map, nothing, nothing, nothing, nothing, dict.fromkeys(("train", "val", "test"), walks))
    return city, rng.integers(0, CELLS, road_map.roads).astype(np.int32)


def expected_values(city: City, tokens: np.ndarray, window: int, max_len: int, trip: int) -> list[float]:
    """Of all candidates of all steps of one trip, the slow way."""
    table, counts = city.road_map.successor_table()
    batch = collate(city.trips["train"], np.array([trip]), max_len)
    roads = batch.roads[0, : int(batch.steps[0])].tolist()
    values: list[float] = []
    for t, road in enumerate(roads):
        cells = [int(tokens[c]) for c in table[road, : counts[road]]]
        values += exact_log_probs(visible([int(tokens[r]) for r in roads[: t + 1]], window), cells).tolist()
    return values


def filling(root: Path, city: City, tokens: np.ndarray, window: int, max_len: int, teacher: ExactTeacher) -> Filling:
    subject = Subject(city, "train", max_len, window, teacher.description)
    return Filling(subject, subject.open_store(root), subject.steps(), Cells(tokens, city.road_map), teacher, 3)


@settings(deadline=None, max_examples=60, database=None)
@given(seed=st.integers(0, 2**32), window=WINDOWS, max_len=st.sampled_from([3, 100]), request_tokens=st.integers(1, 60))
def test_every_value_is_the_direct_answer_rounded(
    seed: int, window: int, max_len: int, request_tokens: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    city, tokens = random_city(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions_module, "REQUEST_TOKENS", request_tokens)
        made = filling(tmp_path_factory.mktemp("labels"), city, tokens, window, max_len, ExactTeacher())
        made.run()
    assert made.store.complete
    for trip in range(len(city.trips["train"])):
        expected = np.array(expected_values(city, tokens, window, max_len, trip), np.float16)
        np.testing.assert_allclose(made.store.read(np.array([trip])), expected, rtol=1e-3, atol=1e-6)
    assert [entry.name for entry in made.store.folder.parent.iterdir()] == [made.store.folder.name]


def steps_asked(query: Query) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(what is seen, candidates) of every step with candidates in a query."""
    histories = np.split(query.tokens, np.cumsum(query.lengths)[:-1])
    candidates = iter(np.split(query.candidates, np.cumsum(query.counts)[:-1]))
    found = []
    for history, scored in zip(histories, query.scored.tolist(), strict=True):
        for end in range(len(history) - scored + 1, len(history) + 1):
            if len(cells := next(candidates)):
                seen = visible(history[:end].tolist(), query.window)
                found.append((tuple(seen), tuple(cells.tolist())))
    return found


@settings(deadline=None, max_examples=40, database=None)
@given(seed=st.integers(0, 2**32), window=st.sampled_from([1, 2, 4]), request_tokens=st.integers(1, 60))
def test_a_window_is_asked_about_once_a_road_and_never_without_a_choice(
    seed: int, window: int, request_tokens: int
) -> None:
    city, tokens = random_city(seed, trips=30)
    steps = Subject(city, "train", 100, window, ExactTeacher().description).steps()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions_module, "REQUEST_TOKENS", request_tokens)
        questions = WindowQuestions(steps, Cells(tokens, city.road_map), window)
    queries = [questions.query(request) for request in range(len(questions.row_tokens))]
    wanted = set()
    for trip in range(30):
        roads = city.trips["train"].roads_of(trip)[:-1]
        for t, road in enumerate(roads):
            seen = tuple(int(tokens[r]) for r in roads[max(0, t + 1 - window) : t + 1])
            if city.road_map.successor_offsets[road + 1] - city.road_map.successor_offsets[road] > 1:
                wanted.add((seen, int(road)))
    assert sum(len(query.lengths) for query in queries) == len(wanted)
    asked = [each for query in queries for each in steps_asked(query)]
    seen_in_order = [seen for seen, _ in asked]
    assert seen_in_order == sorted(seen_in_order), "rows that begin alike are not neighbours"
    cells = Cells(tokens, city.road_map)
    assert Counter(asked) == Counter(
        (seen, tuple(cells.candidates(np.array([road], np.int32))[0].tolist())) for seen, road in wanted
    )
    for query, rows in zip(queries, questions.row_tokens, strict=True):
        assert (query.lengths + 1).sum() == rows
        assert rows - (query.lengths[-1] + 1) < request_tokens
        assert query.bulk
        assert (query.scored == 1).all()
        assert (query.counts > 1).all()


@settings(deadline=None, max_examples=30, database=None)
@given(seed=st.integers(0, 2**32), request_tokens=st.integers(1, 60))
def test_whole_trips_come_in_order_of_their_tokens_each_once(seed: int, request_tokens: int) -> None:
    city, tokens = random_city(seed)
    steps = Subject(city, "train", 100, 0, ExactTeacher().description).steps()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions_module, "REQUEST_TOKENS", request_tokens)
        questions = TripQuestions(steps, Cells(tokens, city.road_map), BLOCK)
    trips = np.concatenate(questions.trips)
    assert sorted(trips) == list(range(12))
    sequences = [tuple(tokens[city.trips["train"].roads_of(trip)[:-1]].tolist()) for trip in trips]
    assert sequences == sorted(sequences)
    for request, some in enumerate(questions.trips):
        query = questions.query(request)
        assert (
            query.lengths.tolist() == query.scored.tolist() == [len(sequences[trips.tolist().index(t)]) for t in some]
        )
        assert query.bulk
        assert (query.counts != 1).all()


class Interrupted(ExactTeacher):
    """Dies after some answers."""

    def score(self, query: Query) -> Answer:
        if len(self.queries) >= 4:
            raise TeacherUnavailable("gone")
        return super().score(query)


@pytest.mark.parametrize("window", [0, 2])
def test_answers_that_came_are_not_asked_again_and_requests_stay_the_same(
    window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions_module, "REQUEST_TOKENS", 10)
    city, tokens = random_city(3, trips=40, roads=20)
    undisturbed = filling(tmp_path / "undisturbed", city, tokens, window, 100, ExactTeacher())
    undisturbed.run()
    first = filling(tmp_path / "labels", city, tokens, window, 100, Interrupted())
    with pytest.raises(TeacherUnavailable):
        first.run()
    second = filling(tmp_path / "labels", city, tokens, window, 100, ExactTeacher())
    second.run()

    def asked(*runs: Filling) -> Counter[bytes]:
        queries = [query for run in runs for query in run.teacher.queries]  # type: ignore[attr-defined]
        return Counter(query.tokens.tobytes() + query.candidates.tobytes() for query in queries)

    again = asked(first, second) - asked(undisturbed)
    assert asked(first).total() >= 4
    assert asked(second).total() >= 4
    assert asked(first, second).keys() == asked(undisturbed).keys()
    assert again.total() < first.in_flight, "more was asked again than was on its way"
    for name in ("values.f16", "marks.u32"):
        assert (second.store.folder / name).read_bytes() == (undisturbed.store.folder / name).read_bytes()
    third = filling(tmp_path / "labels", city, tokens, window, 100, ExactTeacher())
    third.run()
    assert third.teacher.queries == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("window", [0, 2])
def test_trips_that_training_has_labelled_are_left_as_they_are(
    window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions_module, "REQUEST_TOKENS", 30)
    city, tokens = random_city(4, trips=40, roads=20)
    made = filling(tmp_path, city, tokens, window, 100, ExactTeacher())
    there = np.array([5, 17, 30])
    values = np.concatenate([expected_values(city, tokens, window, 100, trip) for trip in there]) - 1
    made.store.write(there, values.astype(np.float32))
    made.run()
    assert made.store.complete
    np.testing.assert_array_equal(made.store.read(there), values.astype(np.float16))


def test_in_a_log_it_tells_how_far_it_is_every_half_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]

    class Slow(ExactTeacher):
        """Takes ten seconds for an answer."""

        def score(self, query: Query) -> Answer:
            now[0] += 10
            return super().score(query)

    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(questions_module, "REQUEST_TOKENS", 10)
    city, tokens = random_city(3, trips=40, roads=20)
    made = replace(filling(tmp_path, city, tokens, 0, 100, Slow()), in_flight=1)
    made.run()
    said = capsys.readouterr().err
    requests = len(made.teacher.queries)  # type: ignore[attr-defined]
    assert requests > 6
    lines = said.splitlines()
    assert "\r" not in said
    assert len(lines) == requests // 3 + 1, "one every three answers, and the last one"
    assert all(re.match(r"labels of train: +\d+%\|.*/.* \[.*tokens/s\]$", line) for line in lines)
    assert lines[-1].startswith("labels of train: 100%")


def test_a_step_without_a_finite_answer_is_kept_as_it_is_and_counted(tmp_path: Path) -> None:
    city, tokens = random_city(5)
    for window in (0, 3):
        teacher = ExactTeacher(broken=2)
        made = filling(tmp_path, city, tokens, window, 100, teacher)
        made.run()
        table, counts = city.road_map.successor_table()
        broken = 0
        for trip in range(12):
            for road in city.trips["train"].roads_of(trip)[:-1]:
                cells = tokens[table[road, : counts[road]]]
                broken += len(cells) > 1 and 2 in cells
        assert unanswered_steps(made.store, made.steps) == broken > 0


def test_the_key_is_what_the_answers_depend_on() -> None:
    city, _ = random_city(6)
    description = ExactTeacher().description
    key = Subject(city, "val", 50, 4, description).key
    assert (key.data, key.split, key.max_len, key.window) == ("f" * 64, "val", 50, 4)
    assert (key.teacher, key.compute_type, key.block_size) == ("e" * 64, "float32", BLOCK)
    assert key.grid["columns"] == CELLS
    assert Subject(city, "val", 50, 4, replace(description, compute_type="bfloat16")).key.name != key.name
