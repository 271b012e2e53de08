"""Real and generated trips scenario by scenario: counts and medians from the trips, figures from `evaluation.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.data.trips import Ints, Trips
from trainer.evaluate.distributions import Measures
from trainer.evaluate.scenarios import NAMES, Requests, Scenarios
from trainer.report.runs import Run
from trainer.report.tables import ABSENT, HEADLINE

FIGURES = tuple(figure for figure in HEADLINE if figure.key != "choice_accuracy")  # those of trips
TITLES = {"day": "Day", "hour": "Hour of the start", "length": "Distance to the destination", "place": "Place"}


@dataclass(frozen=True)
class Party:
    """Trips with what they measure, and the scenarios of their requests."""

    number: int | None  # of the run; None: real trips
    name: str
    measures: Measures
    codes: dict[str, Ints]
    evaluation: dict[str, Any]  # figures by kind and name of scenario

    def cells(self, kind: str, name: str) -> list[str]:
        """Trips, median km and minutes, and the figures against the real trips."""
        chosen = self.codes[kind] == NAMES[kind].index(name)
        medians = [
            f"{np.median(each[chosen]):.2f}" if chosen.any() else ABSENT
            for each in (self.measures.distance_km, self.measures.minutes)
        ]
        found = self.evaluation.get(kind, {}).get(name, {})
        figures = [figure.text(found.get(figure.key)) for figure in FIGURES] if self.number is not None else []
        return [f"{chosen.sum():,}", *medians, *(figures or [""] * len(FIGURES))]


@dataclass(frozen=True)
class Scenario:
    """Who has how many trips of it, and what they are like."""

    name: str
    meaning: str
    rows: list[tuple[Party, list[str]]]


@dataclass(frozen=True)
class Kind:
    title: str
    scenarios: list[Scenario]


def scenarios(
    lines: Scenarios, real: tuple[Trips, Measures], generated: Sequence[tuple[int, Run, Measures]]
) -> list[Kind]:
    """All kinds of scenarios; `generated` has each run's number on the page."""
    trips, measures = real
    parties = [Party(None, "real", measures, lines.codes(Requests.of(trips)), {})]
    for number, run, found in generated:
        assert run.routes
        made = run.routes.generated
        codes = lines.codes(Requests.of(made.trips, made.destinations))
        parties.append(Party(number, run.name, found, codes, run.evaluation.get("scenarios") or {}))
    meanings = _meanings(lines)
    return [
        Kind(
            TITLES[kind],
            [
                Scenario(name, meanings.get(name, ""), [(party, party.cells(kind, name)) for party in parties])
                for name in names
            ],
        )
        for kind, names in NAMES.items()
    ]


def _meanings(lines: Scenarios) -> dict[str, str]:
    told = lines.lines()
    low, high = told["length_terciles_km"]
    return {
        "weekend": "Saturday, Sunday",
        **{name: f"{begin}–{end} h" for name, (begin, end) in told["hours"].items()},
        "short": f"up to {low:.1f} km",
        "medium": f"up to {high:.1f} km",
        "long": f"over {high:.1f} km",
        "centre": "both ends central",
        "between": "one end central",
        "periphery": "no end central",
    }
