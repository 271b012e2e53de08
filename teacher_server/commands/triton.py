"""`teacher triton-repo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def triton_repo(
    artifact: Annotated[Path, typer.Argument(help="Folder of the teacher.")],
    out: Annotated[Path, typer.Option(help="Model repository to write.")],
    name: Annotated[str, typer.Option(help="Name of the model.")] = "teacher",
    device: Annotated[str, typer.Option(help="auto (a GPU where Triton finds one), cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Compute type: float32, bfloat16 or float16.")] = "float32",
    max_batch_size: Annotated[int, typer.Option(help="Histories of all requests that Triton merges.")] = 4096,
    max_queue_size: Annotated[int, typer.Option(help="Requests that may wait; more are refused.")] = 1024,
    batch_tokens: Annotated[int, typer.Option(help="Row tokens computed at once; 0: by device.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the repository that is there.")] = False,
) -> None:
    """Write a teacher as a model repository for an NVIDIA Triton server (Python backend: torch, numpy, safetensors)."""
    from teacher_server.triton.repository import TritonSettings, write_repository  # loads torch

    settings = TritonSettings(name, device, dtype, max_batch_size, max_queue_size, batch_tokens)
    digest = write_repository(artifact, out, settings, overwrite)
    print(f"{out}: model {name}, teacher {digest}; serve it with: tritonserver --model-repository {out}")
