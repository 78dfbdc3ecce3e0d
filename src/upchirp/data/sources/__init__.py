"""Where labelled images come from: folders, tar shards, Hugging Face data sets, generated ones, the user's own."""

from upchirp.data.sources.folder import FolderSource
from upchirp.data.sources.generated import GeneratedSource
from upchirp.data.sources.hugging_face import HuggingFaceSource
from upchirp.data.sources.map_style import MapStyleSource
from upchirp.data.sources.open import as_source, open_data
from upchirp.data.sources.relabelled import RelabelledSource
from upchirp.data.sources.shards import ShardSource
from upchirp.data.sources.source import Source
from upchirp.data.sources.subset import SubsetSource, split

__all__ = [
    "FolderSource",
    "GeneratedSource",
    "HuggingFaceSource",
    "MapStyleSource",
    "RelabelledSource",
    "ShardSource",
    "Source",
    "SubsetSource",
    "as_source",
    "open_data",
    "split",
]
