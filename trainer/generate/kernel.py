"""Attention over paths of unlike lengths on a CPU, compiled: keys and values are read where they lie."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from trainer.machine_code import compiled
from trainer.student.prefixes import Pairs


def attend(queries: Tensor, keys: Tensor, values: Tensor, pairs: Pairs, to_key: Tensor, to_value: Tensor, /) -> Tensor:
    """See Attend. Float32 on a CPU, without gradient."""
    found = queries.new_empty(queries.shape)
    arrays = (queries, keys, values, pairs.place, pairs.start, pairs.relative, queries @ to_key, to_value, found)
    _attend(*(array.detach().contiguous().numpy() for array in arrays))
    return found


def _loop(queries, keys, values, place, start, relative, per_feature, to_value, found):  # type: ignore[no-untyped-def]
    """Step by step and head by head; `per_feature` [N, H, 2] is what a query makes of the relative features."""
    steps, heads, width = queries.shape
    weight = np.empty(np.diff(start).max(), np.float32)
    total_value = np.empty(width, np.float32)
    for n in range(steps):
        first, length = start[n], start[n + 1] - start[n]
        for h in range(heads):
            query, peak = queries[n, h], np.float32(-np.inf)
            for i in range(length):
                p = first + i
                key, score = keys[place[p], h], np.float32(0)
                for w in range(width):
                    score += query[w] * key[w]
                score += per_feature[n, h, 0] * relative[p, 0] + per_feature[n, h, 1] * relative[p, 1]
                weight[i] = score
                peak = max(peak, score)
            total = np.float32(0)
            for i in range(length):
                weight[i] = math.exp(weight[i] - peak)
                total += weight[i]
            distance, interval = np.float32(0), np.float32(0)
            total_value[:] = 0
            for i in range(length):
                p, share = first + i, weight[i] / total
                distance += share * relative[p, 0]
                interval += share * relative[p, 1]
                value = values[place[p], h]
                for w in range(width):
                    total_value[w] += share * value[w]
            for w in range(width):
                found[n, h, w] = total_value[w] + distance * to_value[w, 0] + interval * to_value[w, 1]


_attend = compiled(_loop, any_order=True)
