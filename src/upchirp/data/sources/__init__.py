"""Sources of labelled images: folders, tar shards, Hugging Face data sets, generated ones, the user's own."""

from upchirp.data.sources.archive import ArchiveFolder, ArchiveSource
from upchirp.data.sources.folder import FolderSource
from upchirp.data.sources.generated import GeneratedSource
from upchirp.data.sources.hugging_face import HuggingFaceSource
from upchirp.data.sources.joined import JoinedSource
from upchirp.data.sources.loose import LooseSource, find_images
from upchirp.data.sources.map_style import MapStyleSource
from upchirp.data.sources.open import Note, as_source, open_data, open_evaluation, open_more, warn
from upchirp.data.sources.relabelled import RelabelledSource, UnlabelledSource
from upchirp.data.sources.shards import ShardSource
from upchirp.data.sources.source import Source
from upchirp.data.sources.subset import SubsetSource, hold_out, split
from upchirp.data.sources.table import TableSource
from upchirp.data.sources.unlabelled import open_unlabelled

__all__ = [
    "ArchiveFolder",
    "ArchiveSource",
    "FolderSource",
    "GeneratedSource",
    "HuggingFaceSource",
    "JoinedSource",
    "LooseSource",
    "MapStyleSource",
    "Note",
    "RelabelledSource",
    "ShardSource",
    "Source",
    "SubsetSource",
    "TableSource",
    "UnlabelledSource",
    "as_source",
    "find_images",
    "hold_out",
    "open_data",
    "open_evaluation",
    "open_more",
    "open_unlabelled",
    "split",
    "warn",
]
