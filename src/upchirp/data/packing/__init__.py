"""Packing a data set into tar shards with smaller versions of its training images."""

from upchirp.data.packing.folder import PackResult, pack
from upchirp.data.packing.summary import LevelTotal, ReadBytes, Summary, summarize
from upchirp.data.packing.verification import Damage, verify
from upchirp.data.tars.manifest import PackSettings

__all__ = [
    "Damage",
    "LevelTotal",
    "PackResult",
    "PackSettings",
    "ReadBytes",
    "Summary",
    "pack",
    "summarize",
    "verify",
]
