"""The artifact folder: what is written comes back, and nothing that was tampered with is ever loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from teacher_server.artifact import TeacherDescription, load_artifact, write_artifact
from teacher_server.errors import BadArtifact, BadSettings
from teacher_server.model import LMTAD, ModelConfig
from teacher_server.vocabulary import Grid, SpecialTokens

GRID = Grid(37.0, 37.009, -122.0, -121.996, 0.001, 0.001, 10, 5)
MODEL = ModelConfig(block_size=12, vocab_size=53, n_layer=2, n_head=2, n_embd=8)


def weights(seed: int = 0) -> dict[str, Tensor]:
    model = LMTAD(MODEL)
    model.initialise(torch.Generator().manual_seed(seed))
    return {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}


def write(folder: Path, seed: int = 0, overwrite: bool = False, **provenance: Any) -> TeacherDescription:
    special = SpecialTokens.after(GRID.cells)
    return write_artifact(folder, weights(seed), MODEL, special, GRID, provenance, overwrite)


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "teacher.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(BadArtifact) as caught:
        load_artifact(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    for part in parts:
        assert part in message


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    description = write(tmp_path / "t", source="a run")
    artifact = load_artifact(tmp_path / "t")
    assert artifact.description == description
    assert description.provenance == {"source": "a run"}
    assert (description.model, description.grid) == (MODEL, GRID)
    model = artifact.build()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.lm_head.weight is model.transformer["wte"].weight
    original = LMTAD(MODEL)
    original.initialise(torch.Generator().manual_seed(0))
    tokens = torch.tensor([[52, 1, 2, 3]])
    assert torch.equal(model.logits(model(tokens)), original.eval().logits(original(tokens)))


def test_with_biases_too(tmp_path: Path) -> None:
    config = ModelConfig(12, 53, 1, 2, 8, dropout=0.1, bias=True)
    state = {k: v for k, v in LMTAD(config).state_dict().items() if k != "lm_head.weight"}
    write_artifact(tmp_path / "t", state, config, SpecialTokens.after(50), GRID, {})
    built = load_artifact(tmp_path / "t").build().state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in state.items())


def test_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    first = write(tmp_path / "a", made="Monday").digest
    assert write(tmp_path / "b", made="Tuesday", path="/elsewhere").digest == first
    assert write(tmp_path / "c", seed=1).digest != first
    wider = Grid(37.0, 37.009, -122.0, -121.9955, 0.001, 0.001, 10, 5)
    other = write_artifact(tmp_path / "d", weights(), MODEL, SpecialTokens.after(50), wider, {})
    assert other.digest != first
    whole = Grid(37, 37.009, -122, -121.996, 0.001, 0.001, 10, 5)
    same = write_artifact(tmp_path / "e", weights(), MODEL, SpecialTokens.after(50), whole, {})
    assert same.digest == first


def test_digest_does_not_move_between_versions(tmp_path: Path) -> None:
    """Digests are stamped on stores and checkpoints: one that changes makes all of them strangers."""
    state = {name: torch.full_like(tensor, 0.5) for name, tensor in weights().items()}
    digest = write_artifact(tmp_path / "t", state, MODEL, SpecialTokens.after(50), GRID, {}).digest
    assert digest == "ca527d308c836e93ae4b76a7b65fe8e0295fca7402533edb16ca60750d9ba05a"


EDITS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c.pop("format"), "field format is missing"),
    (lambda c: c.update(format=2), "format is 2"),
    (lambda c: c.pop("digest"), "field digest is missing"),
    (lambda c: c.update(digest="abc"), "digest must be 64 hexadecimal digits, got 'abc'"),
    (lambda c: c.update(digest="0" * 64), "0000000000000000..."),
    (lambda c: c.update(extra=1), "unknown field extra"),
    (lambda c: c.update(grid=[1]), "grid must be a JSON object, got [1]"),
    (lambda c: c["grid"].pop("rows"), "field grid.rows is missing"),
    (lambda c: c["grid"].update(rows=10.0), "grid.rows must be of type int, got 10.0"),
    (lambda c: c["grid"].update(min_lat="37"), "grid.min_lat must be of type float, got '37'"),
    (lambda c: c["grid"].update(cell_deg=0.1), "unknown field grid.cell_deg"),
    (lambda c: c["grid"].update(rows=11), "grid of 11 x 5 cells"),
    (lambda c: c["grid"].update(max_lat=float("nan")), "finite"),
    (lambda c: c["model"].pop("n_head"), "field model.n_head is missing"),
    (lambda c: c["model"].update(n_head=True), "model.n_head must be of type int, got True"),
    (lambda c: c["model"].update(n_head=3), "n_embd 8 is not a multiple of n_head 3"),
    (lambda c: c["model"].update(bias=0), "model.bias must be of type bool, got 0"),
    (lambda c: c["model"].update(bias=True), "tensor transformer."),
    (lambda c: c["model"].update(vocab_size=54), "a vocabulary of 54 tokens does not fit"),
    (lambda c: c["model"].update(n_layer=10**9), "2 layers"),
    (lambda c: c["model"].update(block_size=13), "transformer.wpe.weight has shape [12, 8]"),
    (lambda c: c["model"].update(dropout=0.3), "has digest"),
    (lambda c: c["special_tokens"].update(sot=4), "special_tokens.sot is 4"),
    (lambda c: c["special_tokens"].update(sot=53), "special_tokens.sot is 53"),
    (lambda c: c["special_tokens"].update(sot=51), "special tokens must differ"),
]


@pytest.mark.parametrize(("edit", "expected"), EDITS, ids=[expected for _, expected in EDITS])
def test_an_edited_description_is_refused(
    tmp_path: Path, edit: Callable[[dict[str, Any]], None], expected: str
) -> None:
    write(tmp_path / "t")
    change(tmp_path / "t", edit)
    refused(tmp_path / "t", expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not valid JSON"),
        ('{"format": 1,\n', "teacher.json:2: not valid JSON"),
        ("[]", "must be a JSON object"),
    ],
)
def test_a_description_that_is_no_json_object(tmp_path: Path, text: str, expected: str) -> None:
    write(tmp_path / "t")
    (tmp_path / "t/teacher.json").write_text(text)
    refused(tmp_path / "t", expected)


@pytest.mark.parametrize("name", ["model.safetensors", "teacher.json"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    write(tmp_path / "t")
    (tmp_path / "t" / name).unlink()
    refused(tmp_path / "t", name, "does not exist")


def test_no_folder_at_all(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "does not exist")


def test_an_empty_folder(tmp_path: Path) -> None:
    refused(tmp_path, f"{tmp_path} holds no teacher: put one there with `teacher export SOURCE --out {tmp_path}`")


@pytest.mark.parametrize("left", [0, 5, 200, -1])
def test_truncated_weights(tmp_path: Path, left: int) -> None:
    write(tmp_path / "t")
    path = tmp_path / "t/model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    refused(tmp_path / "t", "model.safetensors", "not a complete safetensors file")


def nan_in(state: dict[str, Tensor]) -> None:
    state["transformer.ln_f.weight"][0] = float("nan")


def one_bit(state: dict[str, Tensor]) -> None:
    state["transformer.ln_f.weight"][0] += 1e-6


WEIGHT_EDITS: list[tuple[Callable[[dict[str, Tensor]], object], str]] = [
    (nan_in, "tensor transformer.ln_f.weight holds values that are not finite"),
    (one_bit, "has digest"),
    (lambda s: s.pop("transformer.ln_f.weight"), "tensor transformer.ln_f.weight is missing"),
    (lambda s: s.update(extra=torch.zeros(1)), "unknown tensor extra"),
    (
        lambda s: s.update({"lm_head.weight": s["transformer.wte.weight"] + 1}),
        "unknown tensor lm_head.weight",
    ),
    (lambda s: s.update({"transformer.ln_f.weight": torch.ones(8).half()}), "ln_f.weight is float16"),
    (lambda s: s.update({"transformer.ln_f.weight": torch.ones(8, 1)}), "ln_f.weight has shape [8, 1]"),
]


@pytest.mark.parametrize(("edit", "expected"), WEIGHT_EDITS, ids=[expected for _, expected in WEIGHT_EDITS])
def test_edited_weights_are_refused(tmp_path: Path, edit: Callable[[dict[str, Tensor]], None], expected: str) -> None:
    write(tmp_path / "t")
    path = tmp_path / "t/model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    edit(state)
    save_file(state, path)
    refused(tmp_path / "t", expected)


def test_nothing_wrong_is_written(tmp_path: Path) -> None:
    state = weights()
    nan_in(state)
    with pytest.raises(BadArtifact, match="not finite"):
        write_artifact(tmp_path / "t", state, MODEL, SpecialTokens.after(50), GRID, {})
    big = Grid(37.0, 37.0105, -122.0, -121.996, 0.001, 0.001, 11, 5)
    with pytest.raises(BadArtifact, match="does not fit a grid"):
        write_artifact(tmp_path / "t", weights(), MODEL, SpecialTokens.after(50), big, {})
    assert list(tmp_path.iterdir()) == []


def test_overwriting(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    folder.mkdir()  # an empty folder may be filled
    first = write(folder)
    with pytest.raises(BadSettings, match=re.escape(f"{folder} already holds a teacher")):
        write(folder, seed=1)
    assert load_artifact(folder).description == first
    second = write(folder, seed=1, overwrite=True)
    assert load_artifact(folder).description == second != first
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_every_user_may_read_a_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "t")
    modes = {path.name: path.stat().st_mode & 0o777 for path in [tmp_path / "t", *(tmp_path / "t").iterdir()]}
    assert modes == {"t": 0o755, "model.safetensors": 0o644, "teacher.json": 0o644}
    monkeypatch.setattr("teacher_server.artifact.os.access", lambda path, how: False)  # root may read anything
    refused(tmp_path / "t", f"{tmp_path}/t/model.safetensors: cannot be read by this user")


def test_a_disk_that_fails_is_told_as_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a server can try it again."""
    write(tmp_path / "t")

    def broken(source: object, copy: object, size: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("teacher_server.artifact.shutil.copyfileobj", broken)
    with pytest.raises(BadArtifact, match=r"model.safetensors: cannot be read: .*Input/output error") as caught:
        load_artifact(tmp_path / "t", copied=True)
    assert isinstance(caught.value.__cause__, OSError)


def test_an_empty_folder_is_filled_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the mount point of a volume; what a killed process left there is no hindrance."""
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial/model.safetensors").write_bytes(b"half of it")
    inode, moved = tmp_path.stat().st_ino, []
    monkeypatch.setattr("teacher_server.files.os.replace", lambda a, b: (moved.append(b.name), a.rename(b)))
    description = write(tmp_path)
    assert moved == ["model.safetensors", "teacher.json"]  # a reader never sees a description without weights
    assert load_artifact(tmp_path).description == description
    assert tmp_path.stat().st_ino == inode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "teacher.json"]


def test_a_foreign_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BadSettings, match="is no teacher artifact"):
        write(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("teacher_server.artifact.save_file", full_disk)
    for folder in (tmp_path / "t", tmp_path):
        with pytest.raises(BadSettings, match="No space left on device"):
            write(folder)
        assert list(tmp_path.iterdir()) == []
