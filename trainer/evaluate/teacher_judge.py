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
from numpy.typing import NDArray

from trainer.data.prepare import Prepared
from trainer.data.trips import Trips
from trainer.errors import BadInput, CannotWrite
from trainer.files import whole_file
from trainer.grid import map_roads
from trainer.teacher.address import connect
from trainer.teacher.judge import judge_trips
from trainer.teacher.pool import IN_FLIGHT
from trainer.teacher.protocol import Likelihoods, Teacher

DEVIATIONS = 3  # of normal scores, from their mean to the threshold
NORMAL = "val"
DETECTION = ("pr_auc", "f1")

Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class TeacherJudge:
    """A teacher and the data whose roads it knows; what it says of real trips is kept beside the prepared data."""

    teacher: Teacher
    prepared: Prepared
    in_flight: int = IN_FLIGHT  # requests at a time

    def verdict(self, split: str, generated: Trips | None) -> tuple[dict[str, Any], Scores]:
        """Figures by name, of the real trips of `split`, of the generated ones, and of those that set the threshold.

        Beside them the anomaly scores of real and generated trips, one by one. Raises TeacherMismatch,
        TeacherUnavailable, BadInput and CannotWrite.
        """
        description = self.teacher.description
        judged = {NORMAL: self._real(NORMAL), "real": self._real(split)}
        if generated is not None:
            judged["generated"] = self._asked(generated, "generated")
        normal = judged[NORMAL].scores
        threshold = float(normal.mean() + DEVIATIONS * normal.std())
        figures = {
            "judge_digest": description.digest,
            "judge_compute_type": description.compute_type,
            "anomaly_threshold": threshold,
            "anomaly_score_std_val": float(normal.std()),
            **{name: value for trips, found in judged.items() for name, value in _of(trips, found, threshold).items()},
        }
        names = {"generated": "anomaly_score", "real": "real_anomaly_score"}
        return figures, {name: judged[trips].scores for trips, name in names.items() if trips in judged}

    def _real(self, split: str) -> Likelihoods:
        """Of a split; asked once for each teacher."""
        description, trips = self.teacher.description, self.prepared.city.trips[split]
        folder = self.prepared.folder.with_name(f"{self.prepared.folder.name}.judged")
        file = folder / f"{split}-{description.digest}-{description.compute_type}.npz"
        if (kept := _kept(file, len(trips))) is not None:
            return kept
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise CannotWrite(f"{folder}: cannot be made ({error.strerror}); name another --cache") from None
        found = self._asked(trips, split)
        with whole_file(file) as partial, partial.open("wb") as stream:
            np.savez(stream, sums=found.log_likelihoods, counts=found.token_counts, truncated=found.truncated)
        return found

    def _asked(self, trips: Trips, title: str) -> Likelihoods:
        centres, grid = self.prepared.city.road_map.centres, self.teacher.description.grid
        tokens = map_roads(grid, centres).road_to_token
        return judge_trips(self.teacher, tokens, trips, f"judging {title}", self.in_flight)


def judge_by_teacher(
    address: str,
    prepared: Prepared,
    split: str,
    generated: Trips | None,
    evaluation: Path | None,
    digest: str | None = None,
) -> tuple[dict[str, Any], Scores]:
    """The verdict of the teacher at an address; with the file that `teacher evaluate` wrote, also what is in it.

    Where a server has several, the one with this `digest` is asked.
    """
    teacher = connect(address, digest=digest)
    if teacher is None:
        raise BadInput(f"--teacher {address}: judges no trips; name a served teacher")
    with teacher:
        outliers = _outliers(evaluation, teacher.description.digest, prepared) if evaluation else {}
        judge = TeacherJudge(teacher, prepared, teacher.in_flight)
        figures, scores = judge.verdict(split, generated)
        return figures | outliers, scores


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
