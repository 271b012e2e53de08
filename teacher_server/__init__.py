"""The teacher: a frozen LM-TAD language model of taxi trips, fitted, described and served."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hoser-distill")
except PackageNotFoundError:  # run from a source tree that was not installed
    __version__ = "0+source"
