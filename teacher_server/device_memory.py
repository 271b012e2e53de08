"""How much memory the device of a server has in use: a GPU's, or this process's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes, asked anew at every call."""

    device: torch.device

    def by_kind(self) -> dict[str, int]:
        """CUDA: what tensors have (`allocated`) and what torch has taken from the driver (`reserved`).
        CPU: what the process has in memory (`resident`).
        """
        if self.device.type == "cuda":
            return {
                "allocated": torch.cuda.memory_allocated(self.device),
                "reserved": torch.cuda.memory_reserved(self.device),
            }
        return {"resident": _resident()}

    def total(self) -> int:
        """What the device has, whoever uses it."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[1]
        return os.sysconf("SC_PHYS_PAGES") * PAGE

    def as_triton(self) -> Iterator[tuple[str, dict[str, str], int]]:
        """(name, labels, bytes) as a Triton server tells them; a GPU's memory holds other processes' too."""
        total = os.sysconf("SC_PHYS_PAGES") * PAGE
        yield "nv_cpu_memory_total_bytes", {}, total
        yield "nv_cpu_memory_used_bytes", {}, total - _available()
        if self.device.type == "cuda":
            free, whole = torch.cuda.mem_get_info(self.device)
            labels = {"gpu_uuid": f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"}
            yield "nv_gpu_memory_total_bytes", labels, whole
            yield "nv_gpu_memory_used_bytes", labels, whole - free


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def _available() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * PAGE
