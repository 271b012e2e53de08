"""Parts of an example that a step takes one after the other: trips of like lengths, so that little is padding.

Sums over all parts are those of the whole example, so the split changes no figure; it bounds memory, and on a CPU the
parts fit into its cache.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from trainer.examples import Example
from trainer.teacher.targets import Target

STEPS_AT_ONCE = {"cpu": 1024, "cuda": 16_384}  # padded steps of a part


def parts_by_length(example: Example, steps_at_once: int | None = None) -> list[Example]:
    """The example's trips in parts of at most `steps_at_once` padded steps, or one trip; the longest trips first."""
    steps = example.features.steps
    limit = steps_at_once or STEPS_AT_ONCE.get(steps.device.type, STEPS_AT_ONCE["cuda"])
    order = steps.argsort(descending=True, stable=True)
    lengths = steps[order].tolist()
    parts: list[Example] = []
    first = 0
    while first < len(lengths):
        count = max(limit // max(lengths[first], 1), 1)
        parts.append(_part(example, order[first : first + count], lengths[first], is_first=not parts))
        first += count
    return parts


def _part(example: Example, trips: Tensor, width: int, *, is_first: bool) -> Example:
    features, labels = example.features.part(trips, width), example.labels.part(trips, width)
    target = _target_part(example.target, trips, width, is_first)
    return Example(features, labels, target, example.missed if is_first else 0, example.own)


def _target_part(target: Target | None, trips: Tensor, width: int, is_first: bool) -> Target | None:
    """Counts belong to the whole example and stay with its first part."""
    if target is None:
        return None
    return replace(
        target,
        log_probs=target.log_probs[trips, :width],
        asked=target.asked[trips, :width],
        cells=None if target.cells is None else target.cells[trips, :width],
        truncated=target.truncated if is_first else 0,
        missed=target.missed if is_first else 0,
    )
