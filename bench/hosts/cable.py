"""A long, bad cable: Ethernet frames between two TAP devices, each held back for a while, some of them lost.

    python -m bench.hosts.cable TAP TAP DELAY_S LOSS

What `tc netem` does, for kernels that lack it. Both ways have this delay and this share of lost frames. Nobody's
checksums or segments are left to hardware on a TAP device, so what TCP sees is what it would see on a wire.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # of linux/if_tun.h
LONGEST_FRAME = 65536


def plugged(device: str) -> int:
    """A file descriptor at the end of a TAP device."""
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TAP | IFF_NO_PI))
    return end


def carry(one: int, other: int, delay_s: float, loss: float) -> None:
    """For ever."""
    across, chance = {one: other, other: one}, random.Random(0)
    under_way: list[tuple[float, int, int, bytes]] = []  # when due, a number that keeps the order, where to, frame
    number = 0
    while True:
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, end, frame = heapq.heappop(under_way)
            os.write(end, frame)
        patience = under_way[0][0] - now if under_way else None
        for end in select.select([one, other], [], [], patience)[0]:
            frame = os.read(end, LONGEST_FRAME)
            if chance.random() >= loss:
                number += 1
                heapq.heappush(under_way, (time.monotonic() + delay_s, number, across[end], frame))


if __name__ == "__main__":
    first, second = (plugged(device) for device in sys.argv[1:3])
    print("plugged in", flush=True)
    carry(first, second, float(sys.argv[3]), float(sys.argv[4]))
