"""What a finished run amounts to: `summary.json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from trainer.assemble import load_trained
from trainer.checkpoint import OWN_COUNTS
from trainer.data.batches import truncated
from trainer.files import digest_of
from trainer.guide import Guide
from trainer.profile import profile_of
from trainer.provenance import program
from trainer.train import Trainer


def summarise(trainer: Trainer, guide: Guide) -> dict[str, Any]:
    """The best student on the test trips, and what it cost. Raises what `Trainer.measure` raises."""
    best, _, _ = load_trained(trainer.folder.best, trainer.city)
    learner = trainer.learner
    learner.student.load_state_dict(best.state_dict())
    with learner.clock("test"):
        sums = trainer.measure(trainer.city.trips["test"], guide.targets_of("test"))
    means = sums.means(learner.objective)
    figures = ("next_step_accuracy", "choice_accuracy", "mape_log1p", "mape_seconds", "loss_next_step")
    limit = trainer.config.trajectory_encoder_config.max_len
    return {
        **{name: means[name] for name in figures},
        "kl": means["loss_kl"],
        "steps_scored": sums.kl_steps,
        "steps_skipped": sums.kl_skipped,
        "tied_share": sums.tied / sums.kl_steps if guide.digest and sums.kl_steps else None,
        "truncated_histories": sums.truncated,
        "truncated_trips": {split: truncated(trips, limit) for split, trips in trainer.city.trips.items()},
        "test_steps": sums.steps,
        "choice_steps": sums.choices,
        "best_epoch": trainer.progress.best_epoch,
        "optimiser_steps": trainer.progress.step,
        "bad_steps": trainer.progress.bad_steps,
        "kl_missed": trainer.progress.kl_missed,
        "own_routes": {name: getattr(trainer.progress, name) for name in OWN_COUNTS} if trainer.own else None,
        "model_digest": digest_of(trainer.folder.best),
        "data_fingerprint": trainer.city.meta.fingerprint,
        "teacher": guide.about,
        "labels_kept": {split: stored.share for split, stored in guide.stored.items()},
        "teacher_calls": asdict(guide.teacher.stats()) if guide.teacher else None,
        "profile": profile_of(learner.clock.seconds, trainer.trips_done),
        "seconds": {part: round(s, 3) for part, s in learner.clock.seconds.items()},
        "torch": torch.__version__,
        **program(),
    }
