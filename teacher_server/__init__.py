"""The teacher: a frozen LM-TAD language model of taxi trips, fitted, described and served."""

import os
from importlib.metadata import PackageNotFoundError, version

# A trainer and its local teacher take turns on the same cores: a waiting thread must sleep, not spin. Read by
# OpenMP when torch is loaded, so it stands before every other import.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# gRPC's core says a line for every connection that fails its handshake: whoever scans the port would fill the log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

try:
    __version__ = version("hoser-distill")
except PackageNotFoundError:  # run from a source tree that was not installed
    __version__ = "0+source"
