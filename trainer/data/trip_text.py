"""The two texts of a trip, `rid_list` and `time_list`, as numbers: one strictly, or very many at once.

Taken together they are read as bytes, with numpy; what is not plainly right as bytes is left to the strict reader.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

ID_LIST = re.compile(r"[0-9,\s-]*", re.ASCII)  # `int` itself would also take `1_0`, `+10` and other scripts' digits
STAMP = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
STAMP_LIST = re.compile(f"{STAMP}(?:,{STAMP})*")
STAMP_BYTES = np.dtype([("time", "S19"), ("zone_and_comma", "S2")])
WIDTH = STAMP_BYTES.itemsize
FORM = np.frombuffer(b"0000-00-00T00:00:00Z,", np.uint8)
DIGITS = np.flatnonzero(ord("0") == FORM)
SIGNS = np.flatnonzero(ord("0") != FORM)
LARGEST_PLAIN_ID = 2**31 - 1  # the strict reader knows what to do with larger ones


def parse_ids(text: str) -> Ints | None:
    """Road ids as written, 64 bits wide, or None."""
    text = text.strip().removeprefix("[").removesuffix("]")
    if not ID_LIST.fullmatch(text):
        return None
    try:
        return np.array(text.split(","), dtype=np.int64)
    except (ValueError, OverflowError):
        return None


def parse_times(text: str) -> Ints | None:
    """Seconds since 1970 of times as written. Strict, because a half-read date is worse than none."""
    text = text.strip()
    if not STAMP_LIST.fullmatch(text):
        return None
    stamps = np.frombuffer(f"{text},".encode(), STAMP_BYTES)["time"]
    try:
        return stamps.astype("datetime64[s]").astype(np.int64)
    except ValueError:  # no such day or hour
        return None


def parse_all_ids(texts: Sequence[str]) -> tuple[Ints, Ints] | None:
    """All ids of many lists and how many each list has; None unless all are plain lists."""
    bare = [text.strip().removeprefix("[").removesuffix("]") for text in texts]
    joined = ",".join(bare).replace(", ", ",")
    if not joined.isascii() or joined.encode().translate(None, b"0123456789,") or ",," in f",{joined},":
        return None
    ids = np.fromstring(joined, dtype=np.int64, sep=",")
    if ids.max(initial=0) > LARGEST_PLAIN_ID:
        return None
    return ids, np.array([text.count(",") + 1 for text in bare], dtype=np.int64)


def parse_all_times(texts: Sequence[str]) -> tuple[Ints, Ints] | None:
    """Seconds since 1970 of all times of many lists and how many each list has; None unless all are right."""
    sizes = np.array([len(text) + 1 for text in texts], dtype=np.int64)
    joined = ",".join(texts) + ","
    if (sizes % WIDTH).any() or not joined.isascii():
        return None
    data = joined.encode()
    stamps = np.frombuffer(data, np.uint8).reshape(-1, WIDTH)
    digits = (stamps - FORM)[:, DIGITS].T
    if (stamps[:, SIGNS] != FORM[SIGNS]).any() or (digits > 9).any():
        return None
    tens, units = digits[8::2].astype(np.int64), digits[9::2]
    hours, minutes, seconds = 10 * tens + units
    if (hours > 23).any() or (minutes > 59).any() or (seconds > 59).any():
        return None
    days = _days(data, digits[:8])
    return None if days is None else (86_400 * days + 3600 * hours + 60 * minutes + seconds, sizes // WIDTH)


def _days(data: bytes, date_digits: NDArray[np.uint8]) -> Ints | None:
    """Days since 1970 of every time: few differ from the one before, and only those are looked up in the calendar."""
    changes = (date_digits[:, 1:] != date_digits[:, :-1]).any(0)
    first = np.append(0, np.flatnonzero(changes) + 1)
    dates = np.frombuffer(data, STAMP_BYTES)["time"][first].astype("S10")
    try:
        days = dates.astype("datetime64[D]").astype(np.int64)
    except ValueError:  # no such day
        return None
    return np.repeat(days, np.diff(first, append=date_digits.shape[1]))


def parse_time(text: str) -> int | None:
    """Seconds since 1970 of one time as written, or None."""
    times = parse_times(text)
    return int(times[0]) if times is not None and len(times) == 1 else None


def format_times(seconds: Ints) -> list[str]:
    """The inverse: YYYY-MM-DDTHH:MM:SSZ."""
    return [f"{stamp}Z" for stamp in np.datetime_as_string(seconds.astype("datetime64[s]"))]
