"""Judge a teacher: perplexity on trips it has not seen, and how well its scores tell outliers from real trips."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score
from tqdm import tqdm

from teacher_server.artifact import Artifact
from teacher_server.errors import BadSettings
from teacher_server.evaluate.outliers import RATIO, SETTINGS, OutlierSetting, make_outliers
from teacher_server.fit.likelihood import Likelihood, likelihood
from teacher_server.fit.tokens import TokenFolder, Trips
from teacher_server.model import LMTAD


@dataclass(frozen=True)
class Detection:
    """How well one kind of outliers was found among real trips."""

    kind: str
    level: int
    share: float
    outliers: int
    pr_auc: float  # average precision of the anomaly score; chance is the share of outliers
    f1: float  # at the threshold
    precision: float
    recall: float


@dataclass(frozen=True)
class Evaluation:
    """Scores are in nats; `threshold` is the mean + 3 population standard deviations of normal (val) scores."""

    digest: str
    data_fingerprint: str
    seed: int
    trips: int
    tokens: int
    trips_cut: int
    perplexity: float
    val_perplexity: float
    normal_mean: float
    normal_std: float
    threshold: float
    outlier_ratio: float
    detections: tuple[Detection, ...]


def evaluate(artifact: Artifact, data: TokenFolder, seed: int, device: torch.device) -> Evaluation:
    """Perplexity of test, and for each outlier setting PR-AUC and F1 among the test trips.

    Deterministic from the seed. Raises BadSettings where the tokens are of another grid than the teacher's, or
    where too few trips can be made outliers.
    """
    check_same_grid(artifact, data)
    model = artifact.build().to(device)
    special = artifact.description.special
    normal = likelihood(model, data.trips("val"), special)
    trips = data.trips("test")
    found = likelihood(model, trips, special)
    mean, std = float(normal.mean.mean()), float(normal.mean.std())
    judge = _Judge(model, data, trips, found, mean + 3 * std, seed)
    detections = tuple(
        judge.detect(number, setting) for number, setting in enumerate(tqdm(SETTINGS, desc="outliers", disable=None))
    )
    return Evaluation(
        digest=artifact.description.digest,
        data_fingerprint=data.data_fingerprint,
        seed=seed,
        trips=len(trips),
        tokens=int(found.tokens.sum()),
        trips_cut=found.cut,
        perplexity=found.perplexity,
        val_perplexity=normal.perplexity,
        normal_mean=mean,
        normal_std=std,
        threshold=judge.threshold,
        outlier_ratio=RATIO,
        detections=detections,
    )


def check_same_grid(artifact: Artifact, data: TokenFolder) -> None:
    """Raise BadSettings, showing both sides, unless teacher and tokens share grid and special tokens."""
    teacher = artifact.description
    ours = {**asdict(teacher.grid), **asdict(teacher.special)}
    theirs = {**asdict(data.grid), **asdict(data.special)}
    for name, value in ours.items():
        if value != theirs[name]:
            raise BadSettings(
                f"{data.folder}: its grid has {name} {theirs[name]}, but the teacher's has {value}: make the tokens "
                "with this teacher's grid (`trainer tokens`)"
            )


@dataclass(frozen=True)
class _Judge:
    model: LMTAD
    data: TokenFolder
    trips: Trips
    scores: Likelihood  # of the unaltered trips
    threshold: float
    seed: int

    def detect(self, number: int, setting: OutlierSetting) -> Detection:
        """Replace some test trips by outliers and see whether their scores stand out."""
        generator = np.random.default_rng([self.seed, number])
        try:
            chosen, outliers = make_outliers(self.trips, self.data.grid, setting, generator)
        except ValueError as error:
            raise BadSettings(f"{self.data.folder}: {setting.kind}, level {setting.level}: {error}") from None
        scores = self.scores.mean.copy()
        scores[chosen] = likelihood(self.model, outliers, self.data.special).mean
        truth = np.zeros(len(scores), dtype=np.int64)
        truth[chosen] = 1
        return _detection(setting, truth, scores, self.threshold)


def _detection(
    setting: OutlierSetting, truth: NDArray[np.int64], scores: NDArray[np.float64], threshold: float
) -> Detection:
    flagged = (scores > threshold).astype(np.int64)
    return Detection(
        kind=setting.kind,
        level=setting.level,
        share=setting.share,
        outliers=int(truth.sum()),
        pr_auc=float(average_precision_score(truth, scores)),
        f1=float(f1_score(truth, flagged, zero_division=0)),
        precision=float(precision_score(truth, flagged, zero_division=0)),
        recall=float(recall_score(truth, flagged, zero_division=0)),
    )
