"""From run folders to the page."""

from __future__ import annotations

import datetime

import numpy as np

from trainer import __version__
from trainer.data.city import City
from trainer.errors import BadInput
from trainer.evaluate.distributions import Measures
from trainer.evaluate.paths import Sphere
from trainer.evaluate.scenarios import Scenarios
from trainer.report.comparison import comparison
from trainer.report.curves import curves
from trainer.report.distributions import distributions
from trainer.report.journeys import journeys
from trainer.report.page import render
from trainer.report.runs import Run
from trainer.report.scenarios import FIGURES as TRIP_FIGURES
from trainer.report.scenarios import scenarios
from trainer.report.streets import streets_of
from trainer.report.tables import HEADLINE, headline, provenance
from trainer.report.usage import usage
from trainer.report.verdict import FIGURES as JUDGED_FIGURES
from trainer.report.verdict import verdicts


def build_report(runs: list[Run], city: City) -> str:
    """The page about runs of one city; parts that a run lacks are said to be missing. Raises BadInput."""
    split = _split(runs)
    real = city.trips[split]
    sphere = Sphere.of(np.asarray(city.road_map.centres))
    measures = [
        (number, run, Measures.of(run.routes.generated.trips, sphere)) for number, run in enumerate(runs) if run.routes
    ]
    truth = Measures.of(real, sphere)
    streets = streets_of(city.road_map)
    visits = {run.name: (found.visits, len(found.minutes)) for _, run, found in measures}
    shapes = distributions(truth, measures)
    learning = curves(runs)
    compared = comparison(runs)
    data = {
        "charts": {f"shape-{shape.quantity.field}": shape.chart for shape in shapes}
        | {f"curve-{number}": chart for number, (_, chart) in enumerate(learning)}
        | ({"comparison": compared.chart} if compared and compared.chart else {}),
        "streets": streets.plain(),
        "usage": usage(streets, (truth.visits, len(real)), visits),
        "journeys": journeys(runs, city.trips, streets, sphere),
    }
    return render(
        {
            "title": _title(runs),
            "written": datetime.date.today().isoformat(),
            "version": __version__,
            "runs": runs,
            "split": split,
            "real_trips": len(real),
            "roads": city.road_map.roads,
            "fingerprint": city.meta.fingerprint,
            "figures": HEADLINE,
            "rows": headline(runs),
            "comparison": compared,
            "shapes": shapes,
            "scenarios": scenarios(Scenarios.of(city.trips["train"], real, sphere), (real, truth), measures),
            "trip_figures": TRIP_FIGURES,
            "verdicts": verdicts(runs, split),
            "judged_figures": JUDGED_FIGURES,
            "learning": learning,
            "provenance": provenance(runs),
            "configs": {run.name: run.folder.config.read_text() for run in runs if run.folder.config.exists()},
            "data": data,
        }
    )


def _split(runs: list[Run]) -> str:
    """The real trips that the runs were compared with. Raises BadInput where they were compared with different ones."""
    splits = {str(run.evaluation["split"]): run.folder.root for run in runs if run.evaluation.get("split")}
    if len(splits) > 1:
        told = " and ".join(f"{root} with {split}" for split, root in splits.items())
        raise BadInput(f"runs were compared with different real trips: {told}; evaluate them with the same --split")
    return next(iter(splits), "test")


def _title(runs: list[Run]) -> str:
    names = ", ".join(run.name for run in runs)
    return names if len(names) <= 80 else f"{runs[0].name} and {len(runs) - 1} more"
