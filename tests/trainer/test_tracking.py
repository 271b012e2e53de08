"""Who keeps the figures: what a failing tracker may do, and event files that TensorBoard reads back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.checkpoint import Progress
from trainer.config import Config
from trainer.config_file import config_from
from trainer.errors import BadInput
from trainer.run_folder import Origin, RunFolder
from trainer.tensorboard_log import TensorBoardLog
from trainer.trackers import check_trackers, open_trackers
from trainer.tracking import Dispensable


class Fragile:
    """Keeps what it is given until it breaks."""

    def __init__(self, breaks_at: int = 10, at_close: bool = False) -> None:
        self.kept: list[tuple[int, dict[str, Any]]] = []
        self._breaks_at, self._at_close = breaks_at, at_close

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        if step >= self._breaks_at:
            raise ConnectionError("the service\nis gone")
        self.kept.append((step, dict(values)))

    def close(self) -> None:
        if self._at_close:
            raise RuntimeError


def test_a_tracker_that_fails_is_said_once_and_asked_no_more() -> None:
    said: list[str] = []
    fragile = Fragile(breaks_at=2)
    tracker = Dispensable("W&B", lambda: fragile, said.append)
    for step in (1, 2, 3, 1):
        tracker.write(step, {"loss": 1.0})
    tracker.close()
    assert fragile.kept == [(1, {"loss": 1.0})]
    assert said == ["warning: W&B failed (the service is gone); training goes on without it"]


def test_a_tracker_may_fail_to_open_or_to_close() -> None:
    said: list[str] = []

    def impossible() -> Fragile:
        raise OSError("no room")

    tracker = Dispensable("TensorBoard", impossible, said.append)
    tracker.write(1, {"loss": 1.0})
    tracker.close()
    Dispensable("W&B", lambda: Fragile(at_close=True), said.append).close()
    assert said == [
        "warning: TensorBoard failed (no room); training goes on without it",
        "warning: W&B failed (RuntimeError); training goes on without it",
    ]


def test_figures_that_are_not_known_are_left_out() -> None:
    fragile = Fragile()
    Dispensable("W&B", lambda: fragile, print).write(1, {"loss": 1.0, "loss_kl": None})
    assert fragile.kept == [(1, {"loss": 1.0})]


def read_back(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: step and value by name."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_reads_what_was_written_under_its_own_name(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path / "tensorboard", 0)
    log.write(10, {"loss": 0.5, "lr": 0.25})
    assert read_back(tmp_path / "tensorboard") == {"loss": [(10, 0.5)], "learning_rate": [(10, 0.25)]}, "at once"
    log.write(20, {"loss": 0.25})
    log.close()
    assert read_back(tmp_path / "tensorboard")["loss"] == [(10, 0.5), (20, 0.25)]


def test_a_resumed_run_shows_no_step_twice(tmp_path: Path) -> None:
    """The first session got to step 30 and was killed in the middle of a record; its checkpoint is of step 20."""
    folder = tmp_path / "tensorboard"
    killed = TensorBoardLog(folder, 0)
    for step in (10, 20, 30):
        killed.write(step, {"loss": step / 8})
    killed.close()
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole + whole[-20:-7])
    file.rename(file.with_name(file.name.replace("tfevents.", "tfevents.0")))  # as it began earlier
    resumed = TensorBoardLog(folder, 20)
    for step in (30, 40):
        resumed.write(step, {"loss": step / 4})
    resumed.close()
    assert read_back(folder)["loss"] == [(10, 1.25), (20, 2.5), (30, 7.5), (40, 10.0)]


def asking_for(section: str) -> Config:
    return config_from({section: {"enable": True}})


@pytest.mark.parametrize(("section", "package"), [("wandb", "wandb"), ("tensorboard", "tensorboardX")])
def test_a_tracker_that_is_not_installed_is_refused(
    section: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_trackers(asking_for(section))
    monkeypatch.setitem(sys.modules, package, None)
    check_trackers(Config())
    with pytest.raises(
        BadInput, match=rf"^{section}.enable needs {package}: pip install 'hoser-distill\[{section}\]'$"
    ):
        check_trackers(asking_for(section))


def test_a_folder_of_that_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(BadInput, match="needs wandb"):
        check_trackers(asking_for("wandb"))


def test_only_what_is_asked_for_is_opened(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(Origin({}, "f" * 64, "none"), {}, {})
    progress = Progress()
    open_trackers(Config(), folder, progress).close()
    assert progress.wandb_id == ""
    assert not (folder.root / "tensorboard").exists()
    open_trackers(asking_for("tensorboard"), folder, progress).close()
    assert len(list((folder.root / "tensorboard").iterdir())) == 1
