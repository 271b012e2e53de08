"""Fit an LM-TAD to the trips of a tokens folder: next-token cross-entropy over tokens 1..EOT.

A run that is stopped and resumed ends with the weights of one that was not: batches depend on (seed, epoch) alone,
and a checkpoint holds the weights, the optimiser, the random state and the position.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from teacher_server.errors import BadSettings, EngineFailure
from teacher_server.fit.likelihood import likelihood
from teacher_server.fit.run import FitConfig, FitRun
from teacher_server.fit.sequences import IGNORED, epoch_batches, pad_batch
from teacher_server.fit.settings import FitSettings
from teacher_server.fit.tokens import TokenFolder, Trips
from teacher_server.model import LMTAD, ModelConfig

SMALLEST_BLOCK = 128


@dataclass
class Position:
    """Where a fit is; `loss_sum` and `loss_tokens` belong to the epoch under way."""

    epoch: int = 0  # epochs completed
    batch: int = 0  # batches of this epoch completed
    step: int = 0
    loss_sum: float = 0.0
    loss_tokens: int = 0
    best_loss: float = float("inf")
    best_epoch: int = 0
    seconds: float = 0.0


def start_run(data: TokenFolder, run: FitRun, settings: FitSettings) -> FitConfig:
    """Make the run folder. Raises BadSettings where it is in use or the sizes cannot work."""
    block_size = settings.block_size or needed_block_size(data)
    try:
        model = ModelConfig(
            block_size, data.vocab_size, settings.layers, settings.heads, settings.width, settings.dropout
        )
    except ValueError as error:
        raise BadSettings(f"the model's sizes cannot work: {error}") from None
    config = FitConfig(settings, model, data.special, data.grid, data.data_fingerprint)
    run.create(config)
    return config


def resume_run(data: TokenFolder, run: FitRun) -> FitConfig:
    """The configuration of a run that is gone on with; what a kill left half written there is removed.

    Raises BadSettings where the data is not what it was.
    """
    config = run.config()
    for name in ("grid", "special", "data_fingerprint"):
        then, now = getattr(config, name), getattr(data, name)
        if then != now:
            raise BadSettings(f"{run.folder} was started with {name} {then}, but {data.folder} has {now}")
    run.remove_partial()
    return config


def needed_block_size(data: TokenFolder) -> int:
    """128, or SOT and the longest trip of train and val."""
    return max(SMALLEST_BLOCK, *(int(data.trips(split).lengths.max()) + 1 for split in ("train", "val")))


def fit(data: TokenFolder, run: FitRun, config: FitConfig, device: torch.device) -> dict[str, Any]:
    """Train until the last epoch and return the summary; goes on from the run's checkpoint if there is one.

    Raises EngineFailure when the loss is no longer finite: nothing of that step reaches weights or checkpoint.
    """
    if (done := run.summary()) is not None:
        return done
    return _Fit(data, run, config, device).to_the_end()


class _Fit:
    def __init__(self, data: TokenFolder, run: FitRun, config: FitConfig, device: torch.device) -> None:
        self.run, self.config, self.settings = run, config, config.settings
        self.train, self.val = data.trips("train"), data.trips("val")
        torch.manual_seed(self.settings.seed)
        self.model = LMTAD(config.model)
        self.model.initialise(torch.Generator().manual_seed(self.settings.seed))
        self.model.to(device).train()
        self.device = device
        self.optimiser = _optimiser(self.model, self.settings)
        self.position = Position()
        self.steps = self.settings.epochs * -(-len(self.train) // self.settings.batch_size)
        self._restore()
        self.began = time.monotonic() - self.position.seconds

    def to_the_end(self) -> dict[str, Any]:
        position = self.position
        with tqdm(total=self.steps, initial=position.step, unit="step", disable=None, desc="fit") as bar:
            while position.epoch < self.settings.epochs:
                self._epoch(bar)
                self._validate(bar)
                self._checkpoint()
        summary = self._summary()
        self.run.save_summary(summary)
        return summary

    def _epoch(self, bar: tqdm[Any]) -> None:
        settings, position = self.settings, self.position
        batches = epoch_batches(self.train.lengths, settings.batch_size, settings.seed, position.epoch)
        for trips in batches[position.batch :]:
            loss, tokens = self._step(trips)
            position.batch += 1
            position.step += 1
            position.loss_sum += loss * tokens
            position.loss_tokens += tokens
            bar.update()
            bar.set_postfix(epoch=position.epoch + 1, loss=f"{loss:.3f}", refresh=False)
            if position.step % settings.checkpoint_steps == 0 and position.batch < len(batches):
                self._checkpoint()

    def _step(self, trips: np.ndarray[Any, Any]) -> tuple[float, int]:
        """One optimiser step; returns the mean loss and the number of predicted tokens."""
        rate = self.settings.rate_at(self.position.step, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batch = pad_batch([self.train[i] for i in trips], self.config.special, self.config.model.block_size)
        inputs, targets = (part.to(self.device) for part in batch)
        loss = next_token_loss(self.model, inputs, targets)
        value = loss.item()
        if not np.isfinite(value):
            raise EngineFailure(
                f"the loss is {value} at step {self.position.step}: start again with a lower --learning-rate"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_norm)
        self.optimiser.step()
        return value, int((targets != IGNORED).sum())

    def _validate(self, bar: tqdm[Any]) -> None:
        """Close the epoch: validation loss, best weights, one line of metrics."""
        position = self.position
        found = likelihood(self.model, self.val, self.config.special)
        position.epoch += 1
        if found.loss < position.best_loss:
            position.best_loss, position.best_epoch = found.loss, position.epoch
            self.run.save_best(self.model)
        train_loss = position.loss_sum / position.loss_tokens
        position.batch, position.loss_sum, position.loss_tokens = 0, 0.0, 0
        self.run.append_metrics(
            {
                "epoch": position.epoch,
                "step": position.step,
                "lr": self.optimiser.param_groups[0]["lr"],
                "train_loss": train_loss,
                "val_loss": found.loss,
                "val_perplexity": found.perplexity,
                "seconds": round(time.monotonic() - self.began, 3),
            }
        )
        bar.write(
            f"epoch {position.epoch}/{self.settings.epochs}: train loss {train_loss:.4f}, "
            f"validation loss {found.loss:.4f}, perplexity {found.perplexity:.3f}",
            file=sys.stderr,
        )

    def _checkpoint(self) -> None:
        self.position.seconds = time.monotonic() - self.began
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        self.run.save_checkpoint(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimiser.state_dict(),
                "random": random,
                "position": asdict(self.position),
            }
        )

    def _restore(self) -> None:
        state = self.run.load_checkpoint()
        if state is not None:
            try:
                self.model.load_state_dict(state["model"])
                self.optimiser.load_state_dict(state["optimizer"])
                self.position = Position(**state["position"])
                torch.set_rng_state(state["random"]["cpu"])
                if self.device.type == "cuda" and "cuda" in state["random"]:
                    torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise BadSettings(f"{self.run.folder}/checkpoint.pt does not fit config.json: {error}") from None
        self.run.keep_metrics(self.position.epoch)

    def _summary(self) -> dict[str, Any]:
        limit = self.config.model.block_size - 1
        return {
            "best_epoch": self.position.best_epoch,
            "val_loss": self.position.best_loss,
            "val_perplexity": float(np.exp(self.position.best_loss)),
            "epochs": self.position.epoch,
            "steps": self.position.step,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "trips": len(self.train),
            "trips_cut": _cut(self.train, limit),
            "val_trips_cut": _cut(self.val, limit),
            "seconds": round(time.monotonic() - self.began, 3),
        }


def next_token_loss(model: LMTAD, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over all positions that have a target; padded ones never reach the head."""
    valid = targets != IGNORED
    return F.cross_entropy(model.logits(model(inputs)[valid]), targets[valid])


def _cut(trips: Trips, limit: int) -> int:
    return int((trips.lengths > limit).sum())


def _optimiser(model: LMTAD, settings: FitSettings) -> torch.optim.AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.99))
