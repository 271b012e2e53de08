"""The losses, as sums over valid steps, in float32 and log space. Pure torch.

P steps (of any number of trips), K candidates. Sums are divided by counts that belong to the whole optimiser step,
so that micro-batches and their sizes do not matter. Masked candidates have logits and log-probabilities of -inf.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def road_loss_sum(logits_PK: Tensor, choice_P: Tensor) -> Tensor:
    """Cross-entropy of the roads taken, summed. Every step has a label."""
    return F.cross_entropy(logits_PK.float(), choice_P, reduction="sum")


def time_loss_sum(time_PK: Tensor, choice_P: Tensor, seconds_P: Tensor, mean: float, std: float) -> Tensor:
    """|y' - y| / max(y, 1), summed; y = log1p(seconds), y' the chosen candidate's time, denormalised."""
    predicted = chosen_log1p(time_PK, choice_P, mean, std)
    actual = torch.log1p(seconds_P.float())
    return ((predicted - actual).abs() / actual.clamp(min=1)).sum()


def chosen_log1p(time_PK: Tensor, choice_P: Tensor, mean: float, std: float) -> Tensor:
    """Predicted log1p(seconds) of the roads taken, [P]."""
    return time_PK.float().gather(1, choice_P[:, None])[:, 0] * std + mean


def kl_sum(teacher_log_probs_PK: Tensor, logits_PK: Tensor, temperature: float) -> Tensor:
    """Sum over steps of KL(q || p); q and p are teacher and student, tempered and renormalised on the candidates.

    Each step has a candidate. The gradient goes to the student's logits only.
    """
    masked = torch.isneginf(teacher_log_probs_PK)
    log_q = F.log_softmax(teacher_log_probs_PK.detach().float() / temperature, dim=-1)
    log_p = F.log_softmax(logits_PK.float() / temperature, dim=-1)
    gap = log_q.masked_fill(masked, 0) - log_p.masked_fill(masked, 0)
    return (log_q.exp() * gap).sum()
