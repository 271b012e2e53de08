"""What others read of an evaluation's JSON, checked once, so that a file that was changed by hand is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.errors import BadInput
from trainer.evaluate.distributions import BINS, HISTOGRAMS

Counts = Annotated[list[float], Field(min_length=BINS + 1, max_length=BINS + 1)]
# What a comparison needs of generated trips, in the file beside the JSON.
REQUESTS = ("line", "origin", "destination", "start", "reached", "offsets", "roads", "seconds")
MEASURES = ("distance_km", "radius_km", "minutes", "real_visits")


class _Histogram(BaseModel):
    model_config = ConfigDict(strict=True)

    greatest: float = Field(ge=0, allow_inf_nan=False)
    generated: Counts
    real: Counts


class _Shape(BaseModel):
    """Names that may be missing, and of what type each is."""

    model_config = ConfigDict(strict=True, extra="allow")

    model_digest: str | None = None
    data_fingerprint: str | None = None
    teacher_digest: str | None = None
    generated_digest: str | None = None
    trips_digest: str | None = None
    version: str | None = None
    commit: str | None = None
    split: str | None = None
    next_step_accuracy: float | None = None
    choice_accuracy: float | None = None
    mape_log1p: float | None = None
    mape_seconds: float | None = None
    loss_next_step: float | None = None
    od_pair_match_rate: float | None = None
    origin_match_rate: float | None = None
    destination_match_rate: float | None = None
    generated_with: dict[str, Any] | None = None
    dropped_trips: dict[str, int] | None = None
    distributions: dict[str, _Histogram] = {}
    scenarios: dict[str, dict[str, dict[str, Any]]] | None = None


def check_figures(file: Path, figures: dict[str, Any]) -> None:
    """Raises BadInput, which names the first value of a wrong type."""
    try:
        _Shape.model_validate(figures)
    except ValidationError as error:
        first = error.errors()[0]
        where, why = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Input ")
        raise BadInput(f"{file}: {where} {why}: not what trainer evaluate writes; run it again") from None


def check_compared(file: Path, figures: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Raises BadInput where evaluated trips lack what a comparison needs of them."""
    lacking = [name for name in HISTOGRAMS.values() if name not in figures.get("distributions", {})]
    lacking += [name for name in (*REQUESTS, *MEASURES) if name not in arrays]
    if lacking:
        raise BadInput(f"{file}: has no {lacking[0]} of its trips; run trainer evaluate again")
