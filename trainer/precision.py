"""Half precision where it is safe: autocast for the student's forward pass, and a scale for float16's small range.

The road network encoder, the losses and the optimiser's numbers stay in float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainer.errors import BadInput

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Precision:
    """How a device computes a step: `off` (float32), `bf16`, or `fp16` with scaled gradients."""

    def __init__(self, kind: str = "off", device_type: str = "cpu") -> None:
        self._kind = kind
        self._device_type = device_type
        self.scaler = torch.amp.GradScaler(device_type, enabled=kind == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        """For the forward pass and the loss."""
        return torch.autocast(self._device_type, dtype=HALF.get(self._kind), enabled=self._kind in HALF)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to go back from."""
        return self.scaler.scale(loss)

    def unscale(self, optimizer: Optimizer) -> None:
        """Gives all gradients their own size again, once they are complete."""
        self.scaler.unscale_(optimizer)

    def after(self, *, taken: bool) -> bool:
        """Adapts the scale after a step that was taken or had a gradient that is not finite.

        Returns whether the step is worth another try, because the scale was what made the gradient overflow.
        """
        if not self.scaler.is_enabled():
            return False
        self.scaler.update()
        return not taken and self.scaler.get_scale() >= 1


def precision_for(kind: str, device: torch.device) -> Precision:
    """Raises BadInput for a precision that the device does not have."""
    if kind == "fp16" and device.type != "cuda":
        raise BadInput("training.amp: fp16 needs a CUDA device; bf16 also runs on a CPU")
    if kind == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise BadInput(f"training.amp: {torch.cuda.get_device_name(device)} has no bf16; fp16 will do")
    return Precision(kind, device.type)
