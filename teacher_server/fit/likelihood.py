"""How probable a teacher finds whole trips: the basis of perplexity and of anomaly scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from teacher_server.fit.sequences import IGNORED, budget_batches, pad_batch
from teacher_server.fit.tokens import Trips
from teacher_server.model import LMTAD
from teacher_server.vocabulary import SpecialTokens

TOKEN_BUDGET = 4096  # padded tokens of one forward pass
LOGITS_AT_ONCE = 1 << 24  # logits that are held together, 64 MB: positions go through the head in slices


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihoods of n trips, in nats, each over its cells and EOT."""

    nll: NDArray[np.float64]  # [n] sums
    tokens: NDArray[np.int64]  # [n] predicted tokens: cells that fit and EOT
    cut: int  # trips that were longer than the block size allows

    @property
    def mean(self) -> NDArray[np.float64]:
        """The anomaly score of each trip, [n]: mean negative log-likelihood of tokens 1..EOT."""
        return self.nll / self.tokens

    @property
    def loss(self) -> float:
        """Mean over all tokens of all trips."""
        return float(self.nll.sum() / self.tokens.sum())

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))


@torch.inference_mode()
def likelihood(model: LMTAD, trips: Trips, special: SpecialTokens) -> Likelihood:
    """Score every trip on the model's device, in eval mode; the model's own mode is restored."""
    block_size, device = model.config.block_size, model.lm_head.weight.device
    training = model.training
    model.eval()
    lengths = trips.lengths
    nll = np.zeros(len(trips))
    for batch in budget_batches(lengths, block_size, TOKEN_BUDGET):
        inputs, targets = pad_batch([trips[i] for i in batch], special, block_size)
        nll[batch] = _batch_nll(model, inputs.to(device), targets.to(device))
    model.train(training)
    return Likelihood(nll, np.minimum(lengths, block_size - 1) + 1, int((lengths > block_size - 1).sum()))


def _batch_nll(model: LMTAD, inputs: torch.Tensor, targets: torch.Tensor) -> NDArray[np.float64]:
    """Sums over the tokens of each trip, float64 [N], added up in float64."""
    rows, columns = torch.nonzero(targets != IGNORED, as_tuple=True)
    hidden, wanted = model(inputs)[rows, columns], targets[rows, columns]
    step = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    losses = [
        F.cross_entropy(model.logits(hidden[i : i + step]).float(), wanted[i : i + step], reduction="none")
        for i in range(0, len(wanted), step)
    ]
    sums = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    sums.index_add_(0, rows, torch.cat(losses).double())
    result: NDArray[np.float64] = sums.cpu().numpy()
    return result
