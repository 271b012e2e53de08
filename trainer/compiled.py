"""torch.compile for the student, as the configuration asks for it."""

from __future__ import annotations

import os
import shutil

import torch

from trainer.config import Training
from trainer.student.hoser import HOSER

WITHOUT_CUDA_GRAPHS = {"reduce-overhead": "default", "max-autotune": "max-autotune-no-cudagraphs"}


def compile_student(student: HOSER, training: Training) -> str | None:
    """Compiles in place, if asked to, what runs for every micro-batch; names of weights stay as they are.

    The road network encoder has kernels of its own and runs once a step. Shapes are dynamic, so that trips of all
    lengths share the code; each mode is taken without CUDA graphs, which would be recorded anew for every length.
    Where nothing can be compiled the student stays as it is and the reason is returned.
    """
    if not training.torch_compile:
        return None
    if reason := _obstacle(student.road2zone.device):
        return (
            f"training.torch_compile: nothing can be compiled here ({reason}), so training goes on without; "
            "on a CPU it needs g++ and Python's headers, on a GPU Triton"
        )
    mode = WITHOUT_CUDA_GRAPHS.get(training.torch_compile_mode, training.torch_compile_mode)
    for module in (student.trajectory_encoder, student.navigator):
        module.compile(dynamic=True, mode=mode)
    return None


def _obstacle(device: torch.device) -> str | None:
    """What keeps this machine from compiling. Tries a trifle: what a compiler lacks shows only when it works."""
    # A trifle that lies in the compiler's cache would not miss it.
    if device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        return "no C++ compiler"
    try:
        torch.compile(_trifle)(torch.zeros(8, device=device))
    except Exception as error:  # of many kinds: no headers, no Triton
        return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:160]
    return None


def _trifle(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) + 1
