"""The engine speaks token ids only: a packed batch in, log-probabilities of its candidates out.

Letters: N rows of width L, D embedding, Q read positions, K candidates of all positions together.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from teacher_server.model import LMTAD
from teacher_server.packing import PackedBatch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Float32 numbers of candidates' embedding rows that are gathered at once: many candidates cost time, not memory.
GATHERED_AT_ONCE = 1 << 22


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Raises ValueError for an unknown device or one that is not here."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}: use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device is usable here: use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is float16 on CUDA and float32 on the CPU. Raises ValueError for an unknown name."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise ValueError(f"unknown dtype {name!r}: use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


class Engine:
    """A frozen LM-TAD on a device, its weights in the compute type. Takes over the model that it is given."""

    def __init__(self, model: LMTAD, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)

    @property
    def compute_type(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @torch.inference_mode()
    def log_probs(self, batch: PackedBatch) -> NDArray[np.float32]:
        """[K] log-probabilities, each position's candidates renormalised among themselves, in their order.

        The vocabulary's partition function cancels in that ratio, so only candidates' logits are computed.
        Raises ArithmeticError when the model's output is not finite (the compute type overflowed).
        """
        hidden_NLD = self._model(self._sent(batch.tokens))
        hidden_QD = hidden_NLD[self._sent(batch.rows), self._sent(batch.columns)]
        counts = self._sent(batch.candidate_counts)
        position_K = torch.repeat_interleave(counts, output_size=len(batch.candidates))
        logits_K = self._candidate_logits(hidden_QD, self._sent(batch.candidates), position_K)
        answer: NDArray[np.float32] = _segment_log_softmax(logits_K, counts, position_K).cpu().numpy()
        if not np.isfinite(answer).all():
            raise ArithmeticError(f"the model's output is not finite in {self.compute_type}")
        return answer

    def _sent(self, array: NDArray[np.int32] | NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _candidate_logits(self, hidden_QD: Tensor, cells_K: Tensor, position_K: Tensor) -> Tensor:
        """[K] products, summed in float32, of the hidden state and the candidate's (tied) embedding row."""
        embedding = self._model.transformer["wte"].weight
        step = max(GATHERED_AT_ONCE // hidden_QD.shape[1], 1)
        # Filled in place: small parts that stay between large, freed ones would keep the heap from reusing them.
        logits_K = torch.empty(len(cells_K), dtype=torch.float32, device=self.device)
        for start in range(0, len(cells_K), step):
            part = slice(start, start + step)
            rows = F.embedding(cells_K[part], embedding)  # type: ignore[arg-type]
            torch.sum(hidden_QD[position_K[part]].float() * rows.float(), -1, out=logits_K[part])
        return logits_K


def _segment_log_softmax(logits_K: Tensor, counts_Q: Tensor, position_K: Tensor) -> Tensor:
    """log softmax within each run of `counts` consecutive logits, shifted by the run's maximum."""
    highest = torch.segment_reduce(logits_K, "max", lengths=counts_Q)
    shifted = logits_K - highest[position_K]
    total = torch.segment_reduce(shifted.exp(), "sum", lengths=counts_Q)
    return shifted - total.log()[position_K]
