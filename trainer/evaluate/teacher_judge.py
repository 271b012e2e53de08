"""What a served teacher makes of real and generated trips: perplexity, and how many of them it takes for anomalies.

A trip's anomaly score is its mean negative log-likelihood of tokens 1..EOT; one above the mean + 3 population standard
deviations of the scores of normal trips, those of the val split, is an anomaly (as in `teacher evaluate`).
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.prepare import Prepared
from trainer.data.trips import Trips
from trainer.errors import BadInput
from trainer.files import whole_file
from trainer.generate.reading import read_generated
from trainer.grid import map_roads
from trainer.teacher.address import connect
from trainer.teacher.judge import judge_trips
from trainer.teacher.protocol import Likelihoods, Teacher

DEVIATIONS = 3  # of normal scores, from their mean to the threshold
NORMAL = "val"
DETECTION = ("pr_auc", "f1")


@dataclass(frozen=True)
class TeacherJudge:
    """A teacher and the data whose roads it knows; what it says of real trips is kept beside the prepared data."""

    teacher: Teacher
    prepared: Prepared

    def figures(self, split: str, generated: Trips | None) -> dict[str, Any]:
        """By name, of the real trips of `split`, of the generated ones, and of those that set the threshold.

        Raises TeacherMismatch, TeacherUnavailable, BadInput and CannotWrite.
        """
        description = self.teacher.description
        judged = {NORMAL: self._real(NORMAL), "real": self._real(split)}
        if generated is not None:
            judged["generated"] = self._asked(generated, "generated")
        normal = judged[NORMAL].scores
        threshold = float(normal.mean() + DEVIATIONS * normal.std())
        return {
            "judge_digest": description.digest,
            "judge_compute_type": description.compute_type,
            "anomaly_threshold": threshold,
            "anomaly_score_std_val": float(normal.std()),
            **{name: value for trips, found in judged.items() for name, value in _of(trips, found, threshold).items()},
        }

    def _real(self, split: str) -> Likelihoods:
        """Of a split; asked once for each teacher."""
        description, trips = self.teacher.description, self.prepared.city.trips[split]
        folder = self.prepared.folder.with_name(f"{self.prepared.folder.name}.judged")
        file = folder / f"{split}-{description.digest}-{description.compute_type}.npz"
        if (kept := _kept(file, len(trips))) is not None:
            return kept
        found = self._asked(trips, split)
        folder.mkdir(exist_ok=True)
        with whole_file(file) as partial, partial.open("wb") as stream:
            np.savez(stream, sums=found.log_likelihoods, counts=found.token_counts, truncated=found.truncated)
        return found

    def _asked(self, trips: Trips, title: str) -> Likelihoods:
        city, grid = self.prepared.city, self.teacher.description.grid
        return judge_trips(
            self.teacher, map_roads(grid, city.road_map.centres).road_to_token, trips, f"judging {title}"
        )


def judge_by_teacher(
    address: str, prepared: Prepared, split: str, generated: Path | None, evaluation: Path | None
) -> dict[str, Any]:
    """All figures of the teacher at an address; with the file that `teacher evaluate` wrote, also what is in it.

    `generated`: the CSV of generated trips, if there are any.
    """
    trips = read_generated(generated, prepared.city.road_map).trips if generated else None
    teacher = connect(address)
    if teacher is None:
        raise BadInput(f"--teacher {address}: judges no trips; name a served teacher")
    with teacher:
        outliers = _outliers(evaluation, teacher.description.digest, prepared) if evaluation else {}
        return TeacherJudge(teacher, prepared).figures(split, trips) | outliers


def _of(trips: str, found: Likelihoods, threshold: float) -> dict[str, Any]:
    return {
        f"teacher_perplexity_{trips}": found.perplexity,
        f"anomaly_score_mean_{trips}": float(found.scores.mean()),
        f"anomaly_rate_{trips}": float((found.scores > threshold).mean()),
        f"judged_trips_{trips}": len(found.scores),
        f"cut_trips_{trips}": found.truncated,
    }


def _kept(file: Path, trips: int) -> Likelihoods | None:
    """What was asked before; None where nothing usable is there."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            found = Likelihoods(arrays["sums"], arrays["counts"], int(arrays["truncated"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return found if found.log_likelihoods.shape == found.token_counts.shape == (trips,) else None


def _outliers(file: Path, digest: str, prepared: Prepared) -> dict[str, Any]:
    """How well the teacher's scores tell artificial outliers from real trips. Raises BadInput for another teacher's."""
    try:
        found = json.loads(file.read_text())
        theirs = {
            "teacher": (found["digest"], digest),
            "data": (found["data_fingerprint"], prepared.city.meta.fingerprint),
        }
        figures = {
            f"outlier_{name}_{each['kind']}_{each['level']}_{each['share']:g}": float(each[name])
            for each in found["detections"]
            for name in DETECTION
        }
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{file}: is not what `teacher evaluate --out` writes") from None
    for what, (there, here) in theirs.items():
        if there != here:
            raise BadInput(f"{file}: is about {what} {str(there)[:16]}, but this is {here[:16]}")
    return figures
