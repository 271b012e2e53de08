"""Preparing a data folder: once, from its content alone, without touching it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.datasets import files_in, refused, rows_of, set_field, small_city, trainer
from trainer.data.city import SPLITS
from trainer.data.prepare import default_cache, fingerprint_of, prepare
from trainer.data.roadmap import read_road_map
from trainer.data.zones import partition, transition_counts
from trainer.errors import BadInput


@pytest.fixture
def city(tmp_path: Path) -> Path:
    return small_city(tmp_path / "city")


def test_the_second_run_does_nothing(city: Path, tmp_path: Path) -> None:
    first = trainer("prepare", "--data", city, "--cache", tmp_path / "cache")
    assert first.status == 0
    assert first.err == ""
    before = files_in(tmp_path / "cache")
    again = trainer("prepare", "--data", city, "--cache", tmp_path / "cache")
    assert again.status == 0
    assert files_in(tmp_path / "cache") == before
    fingerprint = fingerprint_of(city, False)[:16]
    for outcome, said in ((first, ": prepared: 120 roads, "), (again, ": already prepared: 120 roads, ")):
        assert said in outcome.out
        assert "trips: 42 train, 6 val, 12 test; " in outcome.out
        assert f"fingerprint {fingerprint} in {tmp_path / 'cache' / fingerprint}\n" in outcome.out
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [fingerprint]


def test_what_is_prepared_is_what_the_files_say(city: Path, tmp_path: Path) -> None:
    found = prepare(city, tmp_path / "cache").city
    road_map, classes = read_road_map(city)
    assert found.meta.classes == classes
    assert isinstance(found.road_map.points, np.memmap)
    for name in ("points", "point_offsets", "centres", "length_m", "type_id", "successors", "successor_offsets"):
        assert np.array_equal(getattr(found.road_map, name), getattr(road_map, name)), name
    for split in SPLITS:
        rows = rows_of(city / f"{split}.csv")
        assert len(found.trips[split]) == len(rows)
        for i, row in enumerate(rows):
            times = [int(np.datetime64(text[:-1], "s").astype(int)) for text in row["time_list"].split(",")]
            assert found.trips[split].roads_of(i).tolist() == json.loads(row["rid_list"])
            assert found.trips[split].times_of(i).tolist() == times
    seconds = [d for i in range(len(found.trips["train"])) for d in np.diff(found.trips["train"].times_of(i)).tolist()]
    assert found.meta.log1p_mean == pytest.approx(np.mean(np.log1p(seconds)), rel=1e-12)
    assert found.meta.log1p_std == pytest.approx(np.std(np.log1p(seconds)), rel=1e-12)


def test_a_data_folder_is_only_read(city: Path, tmp_path: Path) -> None:
    before = files_in(city)
    for file in city.iterdir():
        file.chmod(0o444)
    city.chmod(0o555)
    try:
        assert trainer("prepare", "--data", city, "--cache", tmp_path / "cache").status == 0
        assert files_in(city) == before
    finally:
        city.chmod(0o755)


def test_the_cache_of_the_user_is_the_default(city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "hoser-distill"
    assert prepare(city).folder.parent == tmp_path / "xdg" / "hoser-distill"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "hoser-distill"


def test_derived_zones_are_the_same_every_time(city: Path, tmp_path: Path) -> None:
    one, two = (prepare(city, tmp_path / name) for name in ("a", "b"))
    assert {n: c for n, (c, _) in files_in(one.folder).items()} == {n: c for n, (c, _) in files_in(two.folder).items()}
    found = one.city
    assert (found.meta.partition, found.meta.transitions) == ("derived", "derived")
    assert np.array_equal(found.zone_of_road, partition(read_road_map(city)[0]))
    assert found.zones == 3
    assert np.array_equal(found.transitions, transition_counts(found.trips["train"], found.zone_of_road, 3))
    assert found.transitions.sum() > 0


def test_provided_zones_are_used_and_left_alone(city: Path, tmp_path: Path) -> None:
    zones = [road % 4 for road in range(120)]
    matrix = np.arange(16).reshape(4, 4) * (1 - np.eye(4, dtype=np.int64))
    (city / "road_network_partition").write_text("".join(f"{zone}\n" for zone in zones))
    np.save(city / "zone_trans_mat.npy", matrix)
    before = files_in(city)
    outcome = trainer("prepare", "--data", city, "--cache", tmp_path / "cache")
    assert "4 zones (partition provided, matrix provided)" in outcome.out
    found = prepare(city, tmp_path / "cache").city
    assert found.zone_of_road.tolist() == zones
    assert np.array_equal(found.transitions, matrix)
    assert files_in(city) == before


def test_a_provided_partition_alone_gives_its_own_matrix(city: Path, tmp_path: Path) -> None:
    (city / "road_network_partition").write_text("\n".join(str(road // 30) for road in range(120)))
    found = prepare(city, tmp_path / "cache").city
    assert (found.meta.partition, found.meta.transitions) == ("provided", "derived")
    expected = transition_counts(found.trips["train"], np.arange(120) // 30, 4)
    assert np.array_equal(found.transitions, expected)
    assert sorted(path.name for path in city.iterdir())[:2] == ["road_network_partition", "roadmap.geo"]
    assert not (city / "zone_trans_mat.npy").exists()


def test_the_fingerprint_is_of_the_content(city: Path, tmp_path: Path) -> None:
    fingerprint = fingerprint_of(city, False)
    elsewhere = Path(shutil.copytree(city, tmp_path / "elsewhere"))
    os.utime(elsewhere / "train.csv", (1, 1))
    (elsewhere / "README.md").write_text("not part of the data")
    assert fingerprint_of(elsewhere, False) == fingerprint
    prepare(city, tmp_path / "cache")
    assert not prepare(elsewhere, tmp_path / "cache").fresh
    seen = {fingerprint, fingerprint_of(city, True)}
    for name in ("roadmap.geo", "roadmap.rel", "train.csv", "val.csv", "test.csv"):
        with (elsewhere / name).open("a") as stream:
            stream.write("\n")
        seen.add(fingerprint_of(elsewhere, False))
    (elsewhere / "road_network_partition").write_text("0\n" * 120)
    seen.add(fingerprint_of(elsewhere, False))
    assert len(seen) == 8


def test_skip_bad_is_another_data_set(city: Path, tmp_path: Path) -> None:
    set_field(city / "train.csv", 5, "rid_list", "[0, 999]")
    set_field(city / "train.csv", 3, "time_list", "yesterday")
    set_field(city / "test.csv", 0, "rid_list", "[]")
    cache = tmp_path / "cache"
    refused(trainer("prepare", "--data", city, "--cache", cache), f"{city / 'train.csv'}:5: time_list is not", "yest")
    outcome = trainer("prepare", "--data", city, "--cache", cache, "--skip-bad")
    assert outcome.status == 0
    assert "trips: 40 train, 6 val, 11 test;" in outcome.out
    counted = outcome.out.splitlines()[1].removeprefix("dropped trips: ").split(", ")
    assert len(counted) == 3
    assert all(text.startswith("1 x ") for text in counted)
    assert prepare(city, cache, skip_bad=True).city.meta.dropped["test"] == {"rid_list is not a list of road ids": 1}
    again = trainer("prepare", "--data", city, "--cache", cache, "--skip-bad")
    assert again.out == outcome.out.replace(": prepared:", ": already prepared:")


def test_a_map_on_which_no_roads_touch(tmp_path: Path) -> None:
    """Arrays of no elements go through the cache too."""
    (tmp_path / "data").mkdir()
    rows = "".join(f'{i},"[[{i},1],[{i},2]]",a,1\n' for i in range(3))
    (tmp_path / "data" / "roadmap.geo").write_text("geo_id,coordinates,highway,length\n" + rows)
    (tmp_path / "data" / "roadmap.rel").write_text("origin_id,destination_id\n0,1\n1,2\n")
    for split in SPLITS:
        line = '"0,1","2008-01-01T00:00:00Z,2008-01-01T00:00:10Z"\n'
        (tmp_path / "data" / f"{split}.csv").write_text("rid_list,time_list\n" + line)
    found = prepare(tmp_path / "data", tmp_path / "cache").city
    assert found.edge_index.shape == (2, 0)
    assert found.zones == 1


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        fingerprint_of(tmp_path / "none", False)
