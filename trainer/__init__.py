"""The student: HOSER, a route generator on a road network, trained with a teacher behind a network port."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hoser-distill")
except PackageNotFoundError:  # run from a source tree that was not installed
    __version__ = "0+source"
