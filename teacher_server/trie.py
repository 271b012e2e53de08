"""Rows of tokens -> an exact trie, so that what several rows have in common is computed once. Pure numpy.

Attention is causal, so a token's hidden states depend on the tokens before it and on nothing else: rows that begin
alike are alike for as long as they do. Letters: R rows, M nodes, n bins of W slots.

Nodes are numbered depth first: a node's descendants follow it, without a gap, up to its `end`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Tokens = NDArray[np.int32]

SHORT = 16  # rows up to this length share bins; attention over so few tokens alone is all overhead
BIN = 64  # slots of a shared bin


@dataclass(frozen=True, eq=False)
class Trie:
    """M nodes, depth first; node 0 is the root, the token that all rows begin with."""

    tokens: Tokens  # [M]
    depths: Ints  # [M] how many tokens come before
    parents: Ints  # [M] the root's is itself
    ends: Ints  # [M] one past the node's last descendant


@dataclass(frozen=True, eq=False)
class Bins:
    """Nodes brought together so that each finds all that it attends to in its own bin.

    Slot i attends to slot j if j <= i < ends[j]: to itself and to its ancestors. Padding holds node 0 and is seen by
    itself alone.
    """

    nodes: Tokens  # [n, W]
    ends: Tokens  # [n, W]
    causal: bool  # every bin is one row: slot i attends to all j <= i (what padding attends to does not matter)


def build_trie(tokens: Tokens, starts: Ints, lengths: Ints, root: int) -> tuple[Trie, Ints, Ints]:
    """The trie of R rows: `root`, and then `lengths - 1` tokens from `starts` on.

    Returns it with `offsets` [longest + 1] and `nodes`: row r's node at column c is nodes[offsets[c] + rank], where
    rank is the row's place among the rows by descending length (see `rank_by_length`).
    """
    ranks = rank_by_length(lengths)
    starts_by_rank = np.empty_like(starts)
    starts_by_rank[ranks] = starts
    reach = np.searchsorted(np.sort(-lengths), -np.arange(1, lengths.max() + 1), side="right")  # rows with column c
    current = np.zeros(len(lengths), np.int64)
    seen, level_tokens, level_parents = [current], [np.array([root], np.int32)], [np.zeros(1, np.int64)]
    count = 1
    for column, rows in enumerate(reach[1:], 1):
        following = tokens[starts_by_rank[:rows] + (column - 1)]
        keys, current = np.unique((current[:rows] << 32) | following, return_inverse=True)
        current = current + count
        seen.append(current)
        level_tokens.append((keys & 0xFFFF_FFFF).astype(np.int32))
        level_parents.append(keys >> 32)
        count += len(keys)
    order = _depth_first([len(level) for level in level_tokens], level_parents)
    offsets = np.concatenate([[0], np.cumsum(reach)])
    return _ordered(level_tokens, level_parents, *order), offsets, order[0][np.concatenate(seen)]


def rank_by_length(lengths: Ints) -> Ints:
    """[R] each row's place when the longest comes first."""
    ranks = np.empty(len(lengths), np.int64)
    ranks[np.argsort(-lengths, kind="stable")] = np.arange(len(lengths))
    return ranks


def _depth_first(sizes: list[int], parents: list[Ints]) -> tuple[Ints, Ints]:
    """([M] depth-first number, [M] nodes of the subtree) of nodes that are numbered level by level."""
    begins = np.cumsum([0, *sizes])
    subtree = np.ones(begins[-1], np.int64)
    for level in range(len(sizes) - 1, 0, -1):
        here = subtree[begins[level] : begins[level + 1]]
        above = slice(begins[level - 1], begins[level])
        of_parent = np.bincount(parents[level] - begins[level - 1], weights=here, minlength=sizes[level - 1])
        subtree[above] += of_parent.astype(np.int64)
    number = np.zeros(begins[-1], np.int64)
    for level in range(1, len(sizes)):
        here = subtree[begins[level] : begins[level + 1]]
        before = np.cumsum(here) - here
        eldest = np.searchsorted(parents[level], parents[level])  # siblings stand together, by ascending parent
        number[begins[level] : begins[level + 1]] = number[parents[level]] + 1 + before - before[eldest]
    return number, subtree


def _ordered(tokens: list[Tokens], parents: list[Ints], number: Ints, subtree: Ints) -> Trie:
    """The nodes by their depth-first number."""
    levels = np.repeat(np.arange(len(tokens)), [len(level) for level in tokens])
    order = np.argsort(number)
    return Trie(
        tokens=np.concatenate(tokens)[order],
        depths=levels[order],
        parents=number[np.concatenate(parents)][order],
        ends=np.arange(len(order)) + subtree[order],
    )


def cut_into_bins(trie: Trie) -> Iterator[Bins]:
    """Bins in which every node stands at least once with all of its ancestors.

    Rows of up to SHORT tokens are packed together, longer ones have a bin each, beside others of about their length.
    """
    leaves = np.flatnonzero(trie.ends == np.arange(len(trie.ends)) + 1)
    long = trie.depths[leaves] >= SHORT
    if not long.all():
        yield _shared_bins(trie, leaves[~long])
    leaves = leaves[long][np.argsort(trie.depths[leaves[long]], kind="stable")]
    classes = length_class(trie.depths[leaves] + 1)
    for begin, end in zip(*_runs(classes), strict=True):
        yield _row_bins(trie, leaves[begin:end])


def length_class(lengths: Ints) -> Ints:
    """The next of 8, 16, 24, 32, 48, 64, 96, 128, ...: two sizes an octave, so that padding stays below a third."""
    octave = 1 << np.maximum(np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64), 4)
    between = octave // 4 * 3
    return np.where(lengths <= 8, 8, np.where(lengths <= between, np.where(octave == 16, 16, between), octave))


def _runs(values: Ints) -> tuple[Ints, Ints]:
    """([begins], [ends]) of the runs of equal neighbours."""
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    return np.concatenate([[0], changes])[: len(values)], np.concatenate([changes, [len(values)]])[: len(values)]


def _shared_bins(trie: Trie, leaves: Ints) -> Bins:
    """Short leaves and what is above them, depth first, cut into runs; each after its first node's ancestors."""
    is_leaf = np.zeros(len(trie.ends) + 1, np.int64)
    is_leaf[leaves + 1] = 1
    leaves_before = np.cumsum(is_leaf)
    chosen = leaves_before[trie.ends] > leaves_before[:-1]  # nodes with one of these leaves at or below them
    chosen_before = np.concatenate([[0], np.cumsum(chosen)])
    nodes = np.flatnonzero(chosen)
    deepest = int(trie.depths[leaves].max())
    own = len(nodes) if len(nodes) <= BIN else BIN - deepest
    begins = np.arange(0, len(nodes), own)
    above = trie.depths[nodes[begins]]  # [n] ancestors in front
    width = own if len(begins) == 1 else BIN
    table = np.zeros((len(begins), width), np.int64)
    filled = np.zeros(table.shape, bool)
    bin_of, place = np.divmod(np.arange(len(nodes)), own)
    table[bin_of, above[bin_of] + place] = nodes
    filled[bin_of, above[bin_of] + place] = True
    ancestors = trie.parents[nodes[begins]]
    for depth in range(deepest, 0, -1):
        there = np.flatnonzero(above >= depth)
        table[there, depth - 1] = ancestors[there]
        filled[there, depth - 1] = True
        ancestors[there] = trie.parents[ancestors[there]]
    ends = above[:, None] + chosen_before[trie.ends[table]] - begins[:, None]
    return _bins(table, filled, np.minimum(ends, (above + own)[:, None]), causal=False)


def _row_bins(trie: Trie, leaves: Ints) -> Bins:
    """One bin for each of some leaves, in order of their depth: the path from the root."""
    depths = trie.depths[leaves]
    width = int(depths[-1]) + 1
    table = np.zeros((len(leaves), width), np.int64)
    nodes = leaves.copy()
    for column in range(width - 1, -1, -1):
        first = np.searchsorted(depths, column)
        table[first:, column] = nodes[first:]
        nodes[first:] = trie.parents[nodes[first:]]
    return _bins(table, np.arange(width) <= depths[:, None], np.full(table.shape, width), causal=True)


def _bins(table: Ints, filled: NDArray[np.bool_], ends: Ints, causal: bool) -> Bins:
    alone = np.broadcast_to(np.arange(table.shape[1]) + 1, table.shape)
    return Bins(table.astype(np.int32), np.where(filled, ends, alone).astype(np.int32), causal)


def find_homes(bins: list[Bins], trie: Trie) -> Ints:
    """[M] a slot of each node, counted through all bins, in which it stands with all of its ancestors."""
    homes = np.zeros(len(trie.ends), np.int64)
    offset = 0
    for each in bins:
        filled = np.flatnonzero(each.nodes.reshape(-1))  # of node 0, the root, the first slot of a bin is right
        homes[each.nodes.reshape(-1)[filled]] = offset + filled
        offset += each.nodes.size
    return homes
