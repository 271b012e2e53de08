"""The demo never removes what it did not make."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.demo import demo_command
from trainer.errors import BadInput


def test_data_inside_the_demo_folder_is_safe(tmp_path: Path) -> None:
    data = tmp_path / "demo" / "city"
    data.mkdir(parents=True)
    (tmp_path / "demo" / "demo.json").write_text("{}")
    (data / "train.csv").write_text("precious")
    with pytest.raises(BadInput, match="lies in --out"):
        demo_command(out=tmp_path / "demo", data=data)
    with pytest.raises(BadInput, match="no such folder"):
        demo_command(out=tmp_path / "demo", data=tmp_path / "none")
    assert (data / "train.csv").read_text() == "precious"
