"""Arms of the runs against the first one: the numbers of `trainer compare`, as a chart and as its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from trainer.compare.arms import Arm, group
from trainer.compare.comparison import Row
from trainer.compare.result import Result, Settings, compare_arms
from trainer.compare.runs import load_run
from trainer.compare.significance import LEVEL
from trainer.compare.tables import cells, header
from trainer.errors import BadInput
from trainer.report.charts import COLOURS, Chart, chart, finite, label
from trainer.report.runs import Run

SYMBOLS = ("circle", "square", "diamond", "triangle-up")
FIGURE_PX, ARM_PX, AXIS_PX = 10, 13, 64  # of the chart: a figure, each of its arms, and the axis below


@dataclass(frozen=True)
class ArmTable:
    """One arm against the baseline."""

    arm: str
    number: int  # of the arm's first run, which its colour goes by
    symbol: str
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class Comparison:
    """All arms against the baseline, or the reason why they cannot be compared."""

    refusal: str = ""
    baseline: str = ""
    requests: int = 0
    confidence: str = ""
    header: tuple[str, ...] = ()
    tables: list[ArmTable] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # how arms were made, and what the numbers cannot tell
    chart: Chart | None = None


def comparison(runs: list[Run]) -> Comparison | None:
    """Of those runs that are evaluated; None where they are fewer than two arms."""
    evaluated = [run for run in runs if run.evaluation]
    try:
        arms = group([load_run(run.folder.root) for run in evaluated])
        if len(arms) < 2:
            return None
        return _told(compare_arms(arms, Settings()), _numbers(arms, runs))
    except BadInput as error:
        return Comparison(refusal=str(error))


def _numbers(arms: Sequence[Arm], runs: list[Run]) -> dict[str, int]:
    """By arm the place of its first run on the page."""
    places = {run.folder.root: number for number, run in enumerate(runs)}
    return {arm.name: places[arm.runs[0].folder] for arm in arms}


def _told(result: Result, numbers: dict[str, int]) -> Comparison:
    by_arm = [(arm, list(rows)) for arm, rows in groupby(result.rows, key=lambda row: row.arm)]
    tables = [
        ArmTable(arm, numbers[arm], SYMBOLS[place % len(SYMBOLS)], [cells(row) for row in rows])
        for place, (arm, rows) in enumerate(by_arm)
    ]
    confidence = result.settings.confidence
    return Comparison(
        baseline=result.baseline.name,
        requests=result.requests,
        confidence=f"{confidence:.0%}".replace("%", " %"),
        header=header(confidence),
        tables=tables,
        lines=result.lines,
        chart=forest(result.rows, tables),
    )


def forest(rows: Sequence[Row], arms: Sequence[ArmTable]) -> Chart:
    """Differences with intervals as shares of the baseline's value, turned so that better is to the right."""
    told = [row for row in rows if row.difference is not None and row.theirs]
    figures = list(dict.fromkeys(row.figure for row in told))
    traces = []
    for place, arm in enumerate(arms):
        mine = [row for row in told if row.arm == arm.arm]
        below = (place + 1) / (len(arms) + 1) - 0.5  # arms of a figure stand one below the other
        traces.append(_points(mine, [figures.index(row.figure) + below for row in mine], arm))
    lines = {"range": [len(figures) - 0.5, -0.5], "tickvals": list(range(len(figures))), "ticktext": figures}
    drawn = chart(traces, "change, better →", "", yaxis=lines)
    drawn["layout"]["xaxis"] |= {"tickformat": "+.0%", "zeroline": True, "zerolinecolor": "--quiet"}
    drawn["layout"]["hovermode"] = "closest"
    return drawn | {"height": AXIS_PX + (FIGURE_PX + ARM_PX * len(arms)) * len(figures)}


def _points(rows: Sequence[Row], heights: list[float], arm: ArmTable) -> dict[str, Any]:
    """One arm's; filled where significant."""
    points = [_shares(row) for row in rows]
    found = [row.p_corrected is not None and row.p_corrected < LEVEL for row in rows]
    colour = f"--run-{arm.number % COLOURS}"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label(arm.arm),
        "x": [finite(middle) for middle, _, _ in points],
        "y": heights,
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [finite(better) for _, _, better in points],
            "arrayminus": [finite(worse) for _, worse, _ in points],
            "color": colour,
            "thickness": 2,
            "width": 0,
        },
        "marker": {
            "symbol": [arm.symbol if sure else f"{arm.symbol}-open" for sure in found],
            "size": 9,
            "color": colour,
            "line": {"width": 2, "color": colour},
        },
        "hovertext": [label(f"{arm.arm}, {row.figure}: {cells(row)[3]}, p {cells(row)[5]}") for row in rows],
        "hoverinfo": "text",
    }


def _shares(row: Row) -> tuple[float, float | None, float | None]:
    """The difference, and how far the interval reaches to the worse and to the better side, where there is one."""
    assert row.difference is not None
    assert row.theirs
    scale = abs(row.theirs) * (1 if row.better == "higher" else -1)
    middle = row.difference / scale
    if row.low is None or row.high is None:
        return middle, None, None
    worse, better = sorted((row.low / scale, row.high / scale))
    return middle, middle - worse, better - middle
