"""Requests that were right once, a little or wholly spoilt."""

from __future__ import annotations

import copy
import random
from typing import Any

JUNK: list[Any] = [
    None, True, -1, 0, 1, 2, 5, 400, 2**31, 2**63, -(2**70), 1.5, 1e308, float("nan"), "", "7", "\0", "Ж" * 300,
    "FP16", "INT64", "LOG_PROBS", "LOG_LIKELIHOOD", "TOKEN_COUNT",
    [], [[]], [1, [2]], {}, {"binary_data_size": 4}, {"binary_data": True},
    {"timeout": 1}, {"priority": 2}, {"datatype": "FP16"}, {"digest": "ab" * 32}, {"binary_data_output": True},
]  # fmt: skip


def spoilt_bytes(data: bytes, chance: random.Random) -> bytes:
    """One to eight places changed, filled, cut out or repeated."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
        place = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0 if changed:
                changed[place % len(changed)] = chance.randrange(256)
            case 1:
                changed[place:place] = chance.randbytes(chance.randint(1, 9))
            case 2:
                del changed[place : place + chance.randint(1, 40)]
            case _:
                changed += changed[place : place + 30]
    return bytes(changed)


def spoilt_record(record: Any, chance: random.Random) -> Any:
    """A copy of JSON data in which one or two entries, at any depth, are other data, gone, or there twice."""
    record = copy.deepcopy(record)
    for _ in range(chance.randint(1, 2)):
        parent = record
        while isinstance(inner := parent[key := _key(parent, chance)], dict | list) and inner and chance.random() < 0.8:
            parent = inner
        match chance.randrange(4):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, list):
                parent.insert(key, copy.deepcopy(parent[key]))
            case 2 if isinstance(parent, dict):
                parent[chance.choice(("id", "parameters", "outputs", "data", "shape", "more"))] = chance.choice(JUNK)
            case _:
                parent[key] = copy.deepcopy(chance.choice(JUNK))
        if not record:
            break
    return record


def _key(parent: dict[str, Any] | list[Any], chance: random.Random) -> Any:
    return chance.choice(list(parent)) if isinstance(parent, dict) else chance.randrange(len(parent))
