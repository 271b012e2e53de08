"""Road maps as read from files, against slow loops over the same polylines and rows."""

from __future__ import annotations

import csv
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.datasets import Polyline, road_map_of, rows_of, write_map
from trainer.data.roadmap import MOST_AT_A_JUNCTION, csv_rows, read_road_map, whole_number
from trainer.errors import BadInput, BadLine

LINE: Polyline = [(1.0, 2.0), (1.5, 2.5)]

degrees = st.floats(-80, 80).map(lambda x: round(x, 6))
polylines = st.lists(st.tuples(degrees, degrees), min_size=2, max_size=6)


def centroid(line: Polyline) -> tuple[float, float]:
    """Midpoints of the segments, weighted by their length in degrees; the first point where there is no length."""
    total = x = y = 0.0
    for (x0, y0), (x1, y1) in pairwise(line):
        weight = math.hypot(x1 - x0, y1 - y0)
        total += weight
        x += weight * (x0 + x1) / 2
        y += weight * (y0 + y1) / 2
    return (x / total, y / total) if total > 0 else line[0]


@settings(deadline=None, max_examples=100, database=None)
@given(st.lists(polylines, min_size=1, max_size=8))
def test_centres_are_weighted_midpoints(lines: list[Polyline]) -> None:
    road_map, _ = road_map_of(lines, [(0, 0)])
    assert road_map.centres.dtype == np.float64
    np.testing.assert_allclose(road_map.centres, [centroid(line) for line in lines], rtol=0, atol=1e-11)
    assert road_map.first_points.tolist() == [list(line[0]) for line in lines]
    assert road_map.last_points.tolist() == [list(line[-1]) for line in lines]


def test_a_road_of_no_length_has_its_first_point_as_centre() -> None:
    lines: list[Polyline] = [LINE, [(3.1, 4.2), (3.1, 4.2), (3.1, 4.2)], LINE]
    road_map, _ = road_map_of(lines, [(0, 1)])
    assert road_map.centres.tolist() == [[1.25, 2.25], [3.1, 4.2], [1.25, 2.25]]


def test_a_vertex_mean_would_be_wrong() -> None:
    road_map, _ = road_map_of([[(0.0, 0.0), (0.1, 0.0), (10.0, 0.0)]], [(0, 0)])
    assert road_map.centres.tolist() == [[pytest.approx(5.0), 0.0]]


@settings(deadline=None, max_examples=60, database=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=40))
def test_successors_stand_in_the_order_of_the_rows(pairs: list[tuple[int, int]]) -> None:
    road_map, _ = road_map_of([LINE] * 8, pairs)
    table, counts = road_map.successor_table()
    for road in range(8):
        expected = list(dict.fromkeys(b for a, b in pairs if a == road))
        low, high = road_map.successor_offsets[road : road + 2]
        assert road_map.successors[low:high].tolist() == expected
        assert table[road].tolist() == expected + [-1] * (table.shape[1] - len(expected))
        assert counts[road] == len(expected)
    assert road_map.relation_keys().tolist() == sorted({a * 8 + b for a, b in pairs})


def test_real_rows_keep_their_order(core_data: Path) -> None:
    road_map, _ = read_road_map(core_data)
    expected: dict[int, list[int]] = {road: [] for road in range(road_map.roads)}
    for row in rows_of(core_data / "roadmap.rel"):
        expected[int(row["origin_id"])].append(int(row["destination_id"]))
    found = np.split(road_map.successors, road_map.successor_offsets[1:-1])
    assert [part.tolist() for part in found] == list(expected.values())


@pytest.mark.parametrize(
    ("highways", "classes"),
    [
        (["b", "a", "b", "C"], ("C", "a", "b")),
        (["10", "9", "1", "9"], ("1", "9", "10")),
        (["10", "9", "1", "x"], ("1", "10", "9", "x")),
        (["['residential', 'tertiary']", "tertiary", "service", "residential"], ("residential", "service", "tertiary")),
        (["['unclassified', 'tertiary']", "tertiary", "a", "a"], ("a", "tertiary")),
        (["['unclassified', 'unclassified']", "unclassified", "zoo", "zoo"], ("unclassified", "zoo")),
        (['["primary"]', " primary ", "a", "a"], ("a", "primary")),
        (["-1", "3", "-1", "0"], ("-1", "0", "3")),
    ],
)
def test_highway_classes_are_ranked_by_content(highways: list[str], classes: tuple[str, ...]) -> None:
    road_map, found = road_map_of([LINE] * 4, [(0, 1)], highways)
    assert found == classes

    def name(text: str) -> str:
        entries = [entry.strip("' \"") for entry in text.strip("[]").split(",")]
        return next((entry for entry in entries if entry != "unclassified"), "unclassified")

    assert [found[i] for i in road_map.type_id] == [name(text) for text in highways]


def test_an_expression_is_no_class(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    write_map(tmp_path, [LINE], [(0, 0)], [f"[open({str(witness)!r}, 'w').write('x')]"])
    with pytest.raises(BadLine, match="neither a class nor a list"):
        read_road_map(tmp_path)
    assert not witness.exists()


@pytest.mark.parametrize("text", ["[{[]: 1}]", "[" * 9000, "[1, 2]", "[]", "['a', 1]", "[\0]"])
def test_malformed_class_lists(text: str, tmp_path: Path) -> None:
    write_map(tmp_path, [LINE], [(0, 0)], [text])
    with pytest.raises(BadLine, match="neither a class nor a list") as caught:
        read_road_map(tmp_path)
    assert (caught.value.file, caught.value.line) == (tmp_path / "roadmap.geo", 2)


def test_lengths_and_columns_by_name(tmp_path: Path) -> None:
    (tmp_path / "roadmap.geo").write_text(
        '\ufefflength,highway,more,coordinates\r\n0,1,x,"[[1,2],[3,4]]"\r\n7.5,2,x,"[[1, 2], [3, 4], [5, 6]]"\r\n'
    )
    (tmp_path / "roadmap.rel").write_text("destination_id,origin_id\n1,0\n")
    road_map, _ = read_road_map(tmp_path)
    assert road_map.length_m.tolist() == [0.0, 7.5]
    assert road_map.successors.tolist() == [1]
    assert road_map.successor_offsets.tolist() == [0, 1, 1]
    assert road_map.point_offsets.tolist() == [0, 2, 5]


def test_a_field_may_be_longer_than_the_csv_module_likes(tmp_path: Path) -> None:
    line: Polyline = [(i / 1000, 1.0) for i in range(20_000)]
    limit = csv.field_size_limit(131_072)
    try:
        write_map(tmp_path, [line], [(0, 0)])
        assert len(read_road_map(tmp_path)[0].points) == 20_000
    finally:
        csv.field_size_limit(limit)


def test_line_numbers_count_lines_not_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text('a,b\n"one\ntwo",2\n\n3,4\n')
    assert [(line, dict(row)) for line, row in csv_rows(file, ("a", "b"))] == [
        (3, {"a": "one\ntwo", "b": "2"}),
        (5, {"a": "3", "b": "4"}),
    ]


def test_a_file_that_is_not_text_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"a,b\n" + b"1,2\n" * 5000 + b"1,\xff\n")
    with pytest.raises(BadLine, match=r"rows\.csv:5002: not UTF-8 text \(invalid start byte\): .*xff"):
        list(csv_rows(file, ("a", "b")))


def test_short_rows_are_reported_where_somebody_listens(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,2\n3\n5,6\n")
    heard: list[tuple[str, int, str]] = []
    rows = csv_rows(file, ("a", "b"), lambda *said: heard.append(said))
    assert [row["a"] for _, row in rows] == ["1", "5"]
    assert heard == [("too few fields", 3, "3")]
    with pytest.raises(BadLine, match=r"rows\.csv:3: too few fields: '3'"):
        list(csv_rows(file, ("a", "b")))


def test_a_map_without_roads_or_relations(tmp_path: Path) -> None:
    write_map(tmp_path, [], [])
    with pytest.raises(BadInput, match="holds no road"):
        read_road_map(tmp_path)
    write_map(tmp_path, [LINE], [])
    with pytest.raises(BadInput, match="holds no relation"):
        read_road_map(tmp_path)


def test_a_junction_has_bounds(tmp_path: Path) -> None:
    """Pairs of touching roads grow with the square of the road ends at a point, padded tables with the successors."""
    most = MOST_AT_A_JUNCTION
    star: list[Polyline] = [[(0.0, 0.0), (1.0, i / most)] for i in range(most)]
    assert road_map_of(star, [(0, i) for i in range(most)])[0].successor_table()[1][0] == most
    write_map(tmp_path, [*star, [(9.0, 9.0), (0.0, 0.0)]], [(0, 0)])
    with pytest.raises(BadLine, match=r"more than 256 road ends share one point: '\[0.0, 0.0\]'") as caught:
        read_road_map(tmp_path)
    assert (caught.value.file, caught.value.line) == (tmp_path / "roadmap.geo", most + 2)
    write_map(tmp_path, [*star, LINE], [(3, i) for i in range(most + 1)])
    with pytest.raises(BadInput, match="road 3 has 257 successors, a road may have 256") as error:
        read_road_map(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'roadmap.rel'}: ")


@given(st.integers(-(10**20), 10**20))
def test_whole_numbers_are_read_as_written(number: int) -> None:
    assert whole_number(f" {number}\t") == number


@pytest.mark.parametrize(
    "text", ["", "-", "+5", "1_0", "--5", "1.0", "1e3", "0x1", "5 5", "\u0665", "\uff15", "9" * 100]
)
def test_no_whole_numbers(text: str) -> None:
    assert whole_number(text) is None
