"""The engine speaks token ids only: a packed batch in, log-probabilities of its candidates out.

Letters: M nodes of a trie, D embedding, U nodes that are read, Q scored positions, K candidates of all positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from teacher_server import trunk
from teacher_server.model import LMTAD, Block
from teacher_server.packing import PackedBatch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BATCH_TOKENS = {"cpu": 16_384, "cuda": 131_072}  # row tokens of a batch that a device is good at
# Float32 numbers of candidates' embedding rows that are gathered at once: many candidates cost time, not memory.
GATHERED_AT_ONCE = 1 << 22
# (hidden states, tokens) whose logits are held at once where all tokens count: 4 MB on a CPU, in whose cache they stay
# until they are summed, and 256 MB on CUDA.
TILES = {"cpu": (512, 2048), "cuda": (4096, 16_384)}


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
    """A frozen LM-TAD on a device, its weights in the compute type. Takes over the model that it is given.

    With `compiled`, what is between its attentions is compiled when it is first used; batches should then come in few
    sizes (`Packer.bucketed`). Without CUDA graphs: torch's keep to the thread that made them.
    """

    def __init__(self, model: LMTAD, device: torch.device, dtype: torch.dtype, compiled: bool = False) -> None:
        """Raises MemoryError when the device's memory is too small for the weights."""
        self.device, self.dtype = device, dtype
        with _out_of_memory_told("teacher"):
            self._model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self._project = trunk.project
        self._finish = trunk.finish_in_parts if device.type == "cpu" else trunk.finish
        if compiled:
            self._project = torch.compile(trunk.project, dynamic=True)
            self._finish = torch.compile(trunk.finish, dynamic=True)

    @property
    def compute_type(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @torch.inference_mode()
    def log_probs(self, batch: PackedBatch) -> NDArray[np.float32]:
        """[K] log-probabilities of each position's candidates, in their order.

        Where they are renormalised among themselves, the vocabulary's partition function cancels, so only candidates'
        logits are computed; where they are normalised over the vocabulary, a tile of all logits at a time.
        Raises ArithmeticError when the model's output is not finite (the compute type overflowed), MemoryError when
        the device's memory is too small for the batch, ValueError for rows that exceed the block size.
        """
        with _out_of_memory_told("batch"):
            answer = self._log_probs(batch).cpu().numpy()
        if not np.isfinite(answer).all():
            raise ArithmeticError(f"the model's output is not finite in {self.compute_type}")
        return answer

    def _log_probs(self, batch: PackedBatch) -> Tensor:
        tables = [table for each in batch.bins for table in (each.nodes, each.ends)]
        positions, counts, cells_K, over_vocabulary, *trie = self._sent(
            batch.positions, batch.candidate_counts, batch.candidates, batch.over_vocabulary,
            batch.tokens, batch.depths, batch.homes, batch.reads, *tables,
        )  # fmt: skip
        hidden_UD = self._hidden(batch, *trie)
        position_K = torch.repeat_interleave(counts, output_size=len(cells_K))
        logits_K = self._candidate_logits(hidden_UD, cells_K, positions[position_K])
        log_probs_K = _segment_log_softmax(logits_K, counts, position_K)
        if batch.over_vocabulary.any():
            of_vocabulary = over_vocabulary.bool()[position_K]
            reads = positions[position_K[of_vocabulary]]
            partition = logits_K[of_vocabulary] - self._log_partition(hidden_UD, reads)
            log_probs_K[of_vocabulary] = partition.clamp_(max=0.0)  # the two sums round differently
        return log_probs_K

    def _hidden(
        self, batch: PackedBatch, tokens: Tensor, depths: Tensor, homes: Tensor, reads: Tensor, *tables: Tensor
    ) -> Tensor:
        """[U, D] hidden states, after the final norm, of the nodes that are read."""
        if int(batch.depths.max()) >= self._model.config.block_size:
            raise ValueError(f"a row of {int(batch.depths.max()) + 1} tokens exceeds the block size")
        bins = [
            trunk.put_into_bins(nodes, ends, each.causal, self.dtype)
            for each, nodes, ends in zip(batch.bins, tables[0::2], tables[1::2], strict=True)
        ]
        *blocks, last = _blocks(self._model)
        heads = self._model.config.n_head
        x_MD = trunk.embed(self._model, tokens, depths)
        for block in blocks:
            x_MD = self._finish(block, x_MD, trunk.attend(self._project(block, x_MD), bins, homes, heads))
        y_UD = trunk.attend(trunk.project_last(last, x_MD, reads), bins, homes[reads], heads)
        hidden_UD: Tensor = self._model.transformer["ln_f"](self._finish(last, x_MD[reads], y_UD))
        return hidden_UD

    def _sent(self, *arrays: NDArray[Any]) -> Sequence[Tensor]:
        """The arrays on the device. To CUDA they go together, from pinned memory, while the host goes on."""
        if self.device.type == "cpu":
            return [torch.from_numpy(array) for array in arrays]
        flat = torch.from_numpy(np.concatenate([array.reshape(-1).astype(np.int32) for array in arrays]))
        parts = flat.pin_memory().to(self.device, non_blocking=True).split([array.size for array in arrays])
        return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]

    def _candidate_logits(self, hidden_UD: Tensor, cells_K: Tensor, reads_K: Tensor) -> Tensor:
        """[K] products, summed in float32, of the hidden state and the candidate's (tied) embedding row."""
        embedding = self._model.transformer["wte"].weight
        step = max(GATHERED_AT_ONCE // hidden_UD.shape[1], 1)
        # Filled in place: small parts that stay between large, freed ones would keep the heap from reusing them.
        logits_K = torch.empty(len(cells_K), dtype=torch.float32, device=self.device)
        for start in range(0, len(cells_K), step):
            part = slice(start, start + step)
            rows = F.embedding(cells_K[part], embedding)  # type: ignore[arg-type]
            torch.sum(hidden_UD[reads_K[part]].float() * rows.float(), -1, out=logits_K[part])
        return logits_K

    def _log_partition(self, hidden_UD: Tensor, reads: Tensor) -> Tensor:
        """[len(reads)] log of the sum over all tokens of exp(logit) at these reads, float32; each read once."""
        nodes, places = reads.unique(return_inverse=True)
        tile_nodes, tile_tokens = TILES[self.device.type]
        sums = []
        for hidden in hidden_UD[nodes].float().split(tile_nodes):
            total = hidden.new_full((len(hidden),), -torch.inf)
            for rows in self._model.transformer["wte"].weight.split(tile_tokens):  # type: ignore[operator]
                total = torch.logaddexp(total, (hidden @ rows.float().t()).logsumexp(-1))
            sums.append(total)
        return torch.cat(sums)[places]


def _blocks(model: LMTAD) -> list[Block]:
    layers = model.transformer["h"]
    assert isinstance(layers, nn.ModuleList)
    return list(layers)  # type: ignore[arg-type]


@contextmanager
def _out_of_memory_told(of_what: str) -> Iterator[None]:
    """What torch says when memory ends, on either device, as Python's own MemoryError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(str(error).split(". ")[0]) from None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise MemoryError(f"the host's memory is too small for this {of_what}") from None


def _segment_log_softmax(logits_K: Tensor, counts_Q: Tensor, position_K: Tensor) -> Tensor:
    """log softmax within each run of `counts` consecutive logits, shifted by the run's maximum."""
    highest = torch.segment_reduce(logits_K, "max", lengths=counts_Q)
    shifted = logits_K - highest[position_K]
    total = torch.segment_reduce(shifted.exp(), "sum", lengths=counts_Q)
    return shifted - total.log()[position_K]
