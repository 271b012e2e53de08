"""The student: HOSER, a route generator on a road network, trained with a teacher behind a network port."""

import os
from importlib.metadata import PackageNotFoundError, version

# A trainer and its local teacher take turns on the same cores: a waiting thread must sleep, not spin. Read by
# OpenMP when torch is loaded, so it stands before every other import.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# gRPC's core writes lines of its own about every failed handshake; ours say what to do.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

try:
    __version__ = version("hoser-distill")
except PackageNotFoundError:  # run from a source tree that was not installed
    __version__ = "0+source"
