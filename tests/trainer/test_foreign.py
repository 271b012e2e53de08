"""Checkpoints of the original HOSER through `trainer import` and `trainer export`."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.trainer.datasets import Outcome, refused, small_city, trainer
from tests.trainer.golden_data import golden_folder
from trainer.assemble import build_student
from trainer.config import Config
from trainer.data.prepare import prepare
from trainer.student.original import original_state
from trainer.student.trajectory import FourierTime, LinearTime

State = dict[str, Tensor]
GAT = "road_network_encoder.road_gat.convs.0.lin_l.weight"
TIME = "trajectory_encoder.temporal_encoder."


class Bench:
    """A prepared city and a state dict as the original would have saved it."""

    def __init__(self, root: Path) -> None:
        self.root, self.data, self.cache = root, small_city(root / "city"), root / "cache"
        self.city = prepare(self.data, self.cache).city
        torch.manual_seed(5)
        student = build_student(Config(), self.city)
        self.state = original_state(student.state_dict(), max_len=64, zones=self.city.zones)

    def bring(self, file: Path, out: Path, *words: str | Path) -> Outcome:
        return trainer("import", file, "--data", self.data, "--cache", self.cache, "--out", out, *words)

    def saved(self, file: Path, state: Any) -> Path:
        torch.save(state, file)
        return file


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def imported(bench: Bench) -> Path:
    out = bench.root / "imported"
    outcome = bench.bring(bench.saved(bench.root / "best.pth", bench.state), out)
    assert outcome.status == 0, outcome.err
    assert "temporal encoder freqs" in outcome.out
    return out


def older(state: State) -> State:
    """The same with the older temporal encoder."""
    torch.manual_seed(6)
    encoder = LinearTime(128).state_dict()
    rest = {name: value for name, value in state.items() if not name.startswith(TIME)}
    return rest | {f"{TIME}{name}": value for name, value in encoder.items()}


def same(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def documented(spec: Path, sizes: dict[str, int], column: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Names, shapes and types of the table of state-dict names; `column` 4 for the current form, 5 for the older."""
    found = {}
    for line in spec.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[column] == "y":
            shape = tuple(sizes.get(part) or int(part) for part in re.findall(r"\w+", cells[1]))
            found[cells[0]] = shape, cells[2]
    return found


@pytest.mark.parametrize("form", ["freqs", "time_emb"])
def test_export_writes_the_documented_names_shapes_and_types(
    form: str, bench: Bench, shared_spec: Path, tmp_path: Path
) -> None:
    state = bench.state if form == "freqs" else older(bench.state)
    assert bench.bring(bench.saved(tmp_path / "in.pth", state), tmp_path / "run").status == 0
    assert trainer("export", tmp_path / "run", "--out", tmp_path / "out.pt", "--zones", "300").status == 0
    written = torch.load(tmp_path / "out.pt", weights_only=True)
    sizes = {
        "R": bench.city.road_map.roads,
        "Z": 300,
        "E": bench.city.edge_index.shape[1],
        "E_z": len(bench.city.zone_graph()[1]),
        "n_type": len(bench.city.meta.classes),
        "max_len": 64,
    }
    wanted = documented(shared_spec / "hoser_state_dict.md", sizes, 4 if form == "freqs" else 5)
    assert len(wanted) > 90
    found = {name: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in written.items()}
    assert found == wanted


@pytest.mark.parametrize("form", ["freqs", "time_emb"])
def test_golden_round_trip(form: str, golden: Path, golden_root: Path, tmp_path: Path) -> None:
    """The original's own state dict in and out: every trained number, and buffers that are the data's."""
    state = load_file(golden / "hoser_state.safetensors")
    state = state if form == "freqs" else older(state)
    torch.save({f"_orig_mod.{name}": value for name, value in state.items()}, tmp_path / "best.pth")
    words = ("--data", golden_root / "data", "--cache", golden_root / "cache", "--out", tmp_path / "run")
    outcome = trainer("import", tmp_path / "best.pth", *words)
    assert outcome.status == 0, outcome.err
    assert form in outcome.out
    assert trainer("export", tmp_path / "run", "--out", tmp_path / "out.pt").status == 0
    written = torch.load(tmp_path / "out.pt", weights_only=True)
    assert written.keys() == state.keys()
    for name, value in state.items():
        assert written[name].dtype == value.dtype, name
        if "time_estimator." in name:  # of no use in the original either
            assert written[name].shape == value.shape
        else:
            assert torch.equal(written[name], value), name


@pytest.fixture(scope="module")
def golden_root(golden: Path, core_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("golden")
    golden_folder(golden, core_data, root / "data")
    return root


def test_an_imported_run_generates_and_evaluates(bench: Bench, imported: Path) -> None:
    generated = trainer("generate", imported, "--cache", bench.cache, "--count", "3", "--max-expansions", "20")
    assert generated.status == 0, generated.err
    assert trainer("evaluate", imported, "--cache", bench.cache).status == 0
    figures = json.loads((imported / "evaluation.json").read_text())
    assert figures["teacher_digest"] is None
    assert 0 < figures["choice_accuracy"] < 1


def test_an_imported_run_says_where_it_is_from(imported: Path, bench: Bench) -> None:
    origin = json.loads((imported / "origin.json").read_text())
    assert origin["teacher"] == "imported"
    assert origin["imported_from"]["file"] == "best.pth"
    assert origin["config"]["trajectory_encoder_config"]["max_len"] == 64  # as long as the checkpoint's masks
    assert not list(bench.root.glob(".*.partial"))


def test_an_imported_run_is_not_trained_over(imported: Path, bench: Bench) -> None:
    before = (imported / "checkpoints" / "best.safetensors").read_bytes()
    words = ("--data", bench.data, "--cache", bench.cache, "--out", imported, "--teacher", "none", "--resume")
    refused(trainer("train", *words), "cannot resume, teacher: the run was made with imported")
    assert (imported / "checkpoints" / "best.safetensors").read_bytes() == before


def test_more_rows_for_zones_change_no_embedding(bench: Bench, imported: Path, tmp_path: Path) -> None:
    """Our zones table has the data's zones; the original's config may ask for 300."""
    assert trainer("export", imported, "--out", tmp_path / "big.pt", "--zones", "300").status == 0
    assert bench.bring(tmp_path / "big.pt", tmp_path / "run").status == 0
    big, small = (load_file(run / "checkpoints" / "best.safetensors") for run in (tmp_path / "run", imported))
    assert len(big["road_network_encoder.zone_id_emb.weight"]) == 300
    config = Config.model_validate({"road_network_encoder_config": {"zone_id_num_embeddings": 300}})
    wide, narrow = build_student(config, bench.city), build_student(Config(), bench.city)
    wide.load_state_dict(big)
    narrow.load_state_dict(small)
    with torch.no_grad():
        assert torch.allclose(wide.embed().zones[: bench.city.zones], narrow.embed().zones, atol=1e-6)
    refused(trainer("export", imported, "--out", tmp_path / "x.pt", "--zones", "1"), "--zones 1: the student has")


def test_the_file_beside_an_export_tells_what_made_it(imported: Path, bench: Bench, tmp_path: Path) -> None:
    assert trainer("export", imported, "--out", tmp_path / "x.pt").status == 0
    about = json.loads((tmp_path / "x.pt.json").read_text())
    assert about["data_fingerprint"] == bench.city.meta.fingerprint
    assert about["log1p_std"] == bench.city.meta.log1p_std
    assert about["config"]["road_network_encoder_config"]["zone_id_num_embeddings"] == bench.city.zones


def test_wrappings_and_safetensors(bench: Bench, imported: Path, tmp_path: Path) -> None:
    wrapped = bench.saved(tmp_path / "a.pt", {"epoch": 3, "model_state_dict": bench.state, "optimizer_state_dict": {}})
    save_file(bench.state, tmp_path / "b.safetensors")
    wanted = load_file(imported / "checkpoints" / "best.safetensors")
    for number, file in enumerate((wrapped, tmp_path / "b.safetensors")):
        assert bench.bring(file, tmp_path / str(number)).status == 0
        same(load_file(tmp_path / str(number) / "checkpoints" / "best.safetensors"), wanted)


def test_a_student_of_ours_becomes_an_original(bench: Bench, tmp_path: Path) -> None:
    """Trained here, exported, imported again: the same student."""
    words = ("--data", bench.data, "--cache", bench.cache, "--out", tmp_path / "run", "--teacher", "none")
    assert trainer("train", *words, "--set", "optimizer_config.max_epoch=1").status == 0
    assert trainer("export", tmp_path / "run", "--out", tmp_path / "x.pt").status == 0
    assert bench.bring(tmp_path / "x.pt", tmp_path / "again").status == 0
    first, second = (load_file(tmp_path / run / "checkpoints" / "best.safetensors") for run in ("run", "again"))
    same(second, first)


class Malicious:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        import os

        return os.system, ("touch /tmp/executed-by-a-checkpoint",)


def changed(state: State, name: str, value: Tensor | None) -> State:
    """A copy in which one tensor is another one, or is not there."""
    rest = {key: kept for key, kept in state.items() if key != name}
    return rest if value is None else rest | {name: value}


BAD: dict[str, tuple[Callable[[State], Any], str]] = {
    "code": (lambda s: s | {"x": Malicious()}, "holds more than tensors and plain values"),
    "a whole model": (lambda s: FourierTime(4), "nothing in it was executed"),
    "a list": (lambda s: list(s.values()), "holds no state dict, but list"),
    "nothing": (lambda s: {}, "holds no state dict"),
    "values": (lambda s: s | {"epoch": 3}, "epoch is no tensor"),
    "another model": (lambda s: {"transformer.wte.weight": torch.ones(3, 4)}, "is no state dict of HOSER"),
    "a name twice": (lambda s: s | {f"_orig_mod.{GAT}": s[GAT]}, f"{GAT} is there twice"),
    "a tensor less": (lambda s: changed(s, GAT, None), f"lacks {GAT}"),
    "a tensor more": (lambda s: s | {"head.weight": torch.ones(2)}, "has the unknown head.weight"),
    "another shape": (lambda s: changed(s, GAT, torch.ones(128, 64)), f"{GAT} has shape [128, 64]"),
    "both encoders": (lambda s: s | older(s), f"has the unknown {TIME}freqs"),
    "no width": (lambda s: changed(s, "navigator.q_proj.weight", torch.ones(3)), "is missing or no matrix"),
    "integers": (lambda s: changed(s, GAT, s[GAT].long()), f"{GAT} holds torch.int64, not torch.float32"),
    "not finite": (lambda s: changed(s, GAT, s[GAT] / 0), f"{GAT} holds values that are not finite"),
    "blown up": (
        lambda s: changed(s, GAT, torch.ones(1).expand(1 << 20, 1 << 20)),
        "more than the file holds",
    ),
    "other lengths": (
        lambda s: changed(s, "road_network_encoder.road_attr_len", s["road_network_encoder.road_attr_len"] + 0.1),
        "road_attr_len differs from what the data gives",
    ),
    "other zones": (
        lambda s: changed(s, "road2zone", 1 - s["road2zone"].clamp(max=1)),
        "put its own road_network_partition and zone_trans_mat.npy into the data folder",
    ),
    "other roads": (lambda s: changed(s, "road2zone", s["road2zone"][:-1]), "the data gives"),
    "no buffer": (lambda s: changed(s, "road_network_encoder.intersection_attr", None), "has shape nothing"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_checkpoint_is_one_clear_error(kind: str, bench: Bench, tmp_path: Path) -> None:
    spoil, said = BAD[kind]
    file = bench.saved(tmp_path / "bad.pth", spoil(bench.state))
    refused(bench.bring(file, tmp_path / "run"), str(file), said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pth"]
    assert not Path("/tmp/executed-by-a-checkpoint").exists()


def compress(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.unlink(), "no such file"),
        (lambda file: file.write_bytes(b""), "no complete checkpoint of torch.save"),
        (lambda file: file.write_bytes(file.read_bytes()[:-2000]), "no complete checkpoint of torch.save"),
        (lambda file: file.write_text("hello"), "no complete checkpoint of torch.save"),
        (compress, "has compressed entries"),
    ],
)
def test_a_spoilt_file_is_one_clear_error(
    spoil: Callable[[Path], None], said: str, bench: Bench, tmp_path: Path
) -> None:
    file = bench.saved(tmp_path / "bad.pth", bench.state)
    spoil(file)
    refused(bench.bring(file, tmp_path / "run"), str(file), said)
    assert not (tmp_path / "run").exists()


def test_flags_that_cannot_work(bench: Bench, imported: Path, tmp_path: Path) -> None:
    file = bench.saved(tmp_path / "best.pth", bench.state)
    refused(bench.bring(file, imported), "is not empty")
    (tmp_path / "c.yaml").write_text("trajectory_encoder_config: {num_layers: 3}")
    said = "c.yaml: trajectory_encoder_config.num_layers is 3, the checkpoint's weights have 2"
    refused(bench.bring(file, tmp_path / "run", "--config", tmp_path / "c.yaml"), said)
    (tmp_path / "c.yaml").write_text("data: {angle: geographic}")
    assert bench.bring(file, tmp_path / "run", "--config", tmp_path / "c.yaml").status == 0
    refused(trainer("export", tmp_path / "run", "--out", tmp_path / "x.pt"), "which the original cannot compute")
    refused(trainer("export", tmp_path / "none", "--out", tmp_path / "x.pt"), "is not the folder of a training run")
    refused(trainer("export", imported, "--out", tmp_path), "name another --out")
    assert not (tmp_path / "x.pt").exists()
