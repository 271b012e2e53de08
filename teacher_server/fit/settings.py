"""What decides a fit's result: sizes, optimiser, seed. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class FitSettings:
    """Settings of `teacher fit`; the defaults suit a few thousand trips: one or two minutes on two cores.

    Raises ValueError for values that cannot work.
    """

    layers: int = 4
    heads: int = 4
    width: int = 128
    block_size: int = 0  # longest sequence, SOT included; 0: 128, or what the longest trip needs
    dropout: float = 0.1
    epochs: int = 12
    batch_size: int = 16  # trips
    learning_rate: float = 3e-4
    min_learning_rate: float = 3e-5
    warmup_ratio: float = 0.05  # share of all steps
    weight_decay: float = 0.1  # on matrices only
    max_norm: float = 1.0
    checkpoint_steps: int = 500  # between checkpoints; one more at the end of every epoch
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "width", "epochs", "batch_size", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.block_size < 0 or self.block_size == 1:
            raise ValueError(f"block_size must be at least 2 (or 0: as needed), got {self.block_size}")
        for name in ("dropout", "warmup_ratio"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in 0..1 (1 excluded), got {getattr(self, name)}")
        if not 0 < self.min_learning_rate <= self.learning_rate < math.inf:
            raise ValueError(
                f"learning rates must be positive and min_learning_rate at most learning_rate, got "
                f"{self.min_learning_rate} and {self.learning_rate}"
            )
        if self.max_norm <= 0 or self.weight_decay < 0 or self.seed < 0:
            raise ValueError("max_norm must be positive, weight_decay and seed not negative")

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of a step (from 0): linear warm-up to the highest, then a cosine to the lowest."""
        warmup = round(self.warmup_ratio * steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        share = (step - warmup) / max(1, steps - 1 - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
        return self.min_learning_rate + cosine * (self.learning_rate - self.min_learning_rate)
