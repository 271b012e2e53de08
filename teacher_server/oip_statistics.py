"""What a model has done so far, as the Open Inference Protocol's statistics tell it: a view of the store of metrics.

An inference is one scored position, so `inference_count / execution_count` is how many positions a batch holds.
"""

from __future__ import annotations

from typing import Any

from teacher_server.metrics import Distribution, Metrics


def statistics_of(metrics: Metrics, name: str, version: str) -> dict[str, Any]:
    """The statistics in the protocol's JSON form."""
    return {
        "name": name,
        "version": version,
        "last_inference": round(metrics.last_answer * 1000),  # Unix time, ms
        "inference_count": metrics.positions,
        "execution_count": metrics.batch_s.count,
        "inference_stats": {
            "success": _all(metrics.request_s),
            "fail": _duration(metrics.failures, metrics.failed_seconds),
            "queue": _all(metrics.queue_s),
            "compute_infer": _all(metrics.compute_s),
        },
        "batch_stats": [
            {"batch_size": size, "compute_infer": _duration(batches.count, batches.seconds)}
            for size, batches in sorted(metrics.batches.items())
        ],
    }


def _all(times: Distribution) -> dict[str, int]:
    return _duration(times.count, times.sum)


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * 1e9)}
