"""What a student's weights file says of itself: safetensors with a description in the header. Needs no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from trainer.errors import BadInput

FORMAT = "hoser-student-1"


@dataclass(frozen=True)
class StudentCard:
    """What made a student."""

    config: dict[str, Any]  # the run's whole configuration
    data_fingerprint: str
    teacher_digest: str | None
    log1p_mean: float  # of the step times that it was trained on
    log1p_std: float
    step: int  # optimiser steps


@contextmanager
def opened(file: Path, framework: str) -> Iterator[tuple[Any, StudentCard]]:
    """A weights file of ours (safetensors' handle) and its card. Raises BadInput, also for what fails in the block."""
    try:
        with safe_open(file, framework=framework) as stream:
            metadata = stream.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise BadInput(f"{file}: not a student checkpoint of this program")
            yield stream, StudentCard(**json.loads(metadata["card"]))
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file") from None
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{file}: not a student checkpoint ({error})") from None


def read_card(file: Path) -> tuple[StudentCard, int]:
    """The card, and how many numbers the file holds. Raises BadInput."""
    with opened(file, "numpy") as (stream, card):
        return card, sum(math.prod(stream.get_slice(name).get_shape()) for name in stream.keys())  # noqa: SIM118
