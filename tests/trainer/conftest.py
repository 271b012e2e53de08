from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.golden_data import Golden, load_golden


@pytest.fixture(scope="session")
def golden_case(golden: Path, core_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    return load_golden(golden, core_data, tmp_path_factory.mktemp("golden"))
