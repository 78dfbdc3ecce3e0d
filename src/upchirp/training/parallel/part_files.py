"""Checkpoints of sharded states: tensors by `torch.distributed.checkpoint` while training goes on, the rest as usual.

`step_N/` holds the tensors, each rank's in files of its own; `step_N.pt` all else with the SHA-256 of those files. The
latter is written last, so a checkpoint is there when it is whole, and damage is found as in any other one.
"""

import io
import pickle
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from upchirp.errors import InputError
from upchirp.training.checkpoints import checkpoint
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.parallel.state import State

_METADATA = ".metadata"
_CHECKPOINT = "torch.distributed.checkpoint"
_HARMLESS = {
    ("torch", "Size"), ("torch", "device"), ("torch.serialization", "_get_layout"), ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"), ("pathlib._local", "PosixPath"),
    ("torch._utils", "_rebuild_dtype"),
    *((_CHECKPOINT + ".filesystem", name) for name in ("_StorageInfo", "_StoragePrefix")),
    *((_CHECKPOINT + ".metadata", name) for name in (
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    )),
}  # fmt: skip
"""What the index is made of, name by name: of a whole module, whatever it imports would be within reach too."""


class Writer:
    """Writes one checkpoint at a time, while training goes on. All ranks call its methods together."""

    def __init__(self, ranks: Ranks, written: Callable[[Path], None]) -> None:
        self._ranks = ranks
        self._written = written
        # Of its own: what another thread sends must not meet what the training sends.
        self._group: Any = dist.new_group(backend="gloo")
        self._thread = ThreadPoolExecutor(1)
        self._future: Future[dict[str, str]] | None = None
        self._content: dict[str, Any] = {}
        self._path = Path()

    @property
    def busy(self) -> bool:
        return self._future is not None and not self._future.done()

    @property
    def pending(self) -> bool:
        return self._future is not None

    def begin(self, state: State, content: dict[str, Any], path: Path) -> None:
        """Copy the tensors to the host, and let them be written, when the checkpoint before is there."""
        self.finish()
        folder = path.with_suffix("")
        if self._ranks.is_first:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self._ranks.largest(0)  # nobody writes before
        written: Any = async_save(_tensors(state), checkpoint_id=folder, process_group=self._group)
        self._content, self._path = {"state": state.position(), **content}, path
        self._future = self._thread.submit(self._digests, written, folder)

    def finish(self) -> None:
        if self._future is None:
            return
        future, self._future = self._future, None
        try:
            own = future.result()
        except CheckpointException as error:
            cause = next((failure for failure, _ in error.failures.values()), error)
            raise OSError(f"cannot write {self._path}: {cause}") from error
        digests = {name: digest for part in self._ranks.gather(own) for name, digest in part.items()}
        if self._ranks.is_first:
            checkpoint.save({**self._content, checkpoint.PARTS: digests}, self._path)
        self._written(self._path)

    def _digests(self, written: "Future[Any]", folder: Path) -> dict[str, str]:
        """The SHA-256 of this rank's files, once they are written."""
        written.result()
        return {
            file.name: checkpoint.sha256(file)
            for file in folder.iterdir()
            if file.name.startswith(f"__{self._ranks.rank}_") or (self._ranks.is_first and file.name == _METADATA)
        }


def read(state: State, loaded: checkpoint.Loaded) -> None:
    """Fill a state from a checkpoint, which any number of ranks wrote. All ranks call it together.

    Raises:
        InputError: it holds other tensors.
    """
    path, position = loaded.path, loaded.content["state"]
    stored = stored_tensors(path)
    state.fit_to(position["bandwidth"])
    make_moments(state, stored)
    tensors = _tensors(state)
    for name, tensor in tensors.items():
        if name not in stored or stored[name][0] != tensor.size():
            raise InputError(f"the checkpoint {path} belongs to another model or recipe: {name} is not in it as it is")
    try:
        load(tensors, storage_reader=_Reader(path.with_suffix("")))
    except CheckpointException as error:
        cause = next((failure for failure, _ in error.failures.values()), error)
        raise InputError(f"the checkpoint {path} cannot be read: {cause}") from error
    state.load_position(position)


def stored_tensors(path: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Sizes and types of a checkpoint's tensors, by name."""
    stored = _Reader(path.with_suffix("")).read_metadata().state_dict_metadata
    return {
        name: (entry.size, entry.properties.dtype)
        for name, entry in stored.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def make_moments(state: State, stored: Mapping[str, tuple[torch.Size, torch.dtype]]) -> None:
    """Make room for the optimizer's tensors, which are given by their sizes and types as files name them."""
    for name, parameter in state.model.named_parameters():
        prefix = f"optimizer.{name}."
        for key in [key.removeprefix(prefix) for key in stored if key.startswith(prefix)]:
            size, dtype = stored[prefix + key]
            like = size == parameter.size()
            # Fused optimizers count their steps on the device.
            own = torch.zeros_like(parameter) if like else torch.zeros(size, dtype=dtype, device=parameter.device)
            state.optimizer.state[parameter][key] = own.detach()


def _tensors(state: State) -> dict[str, Tensor]:
    """All tensors of a state by names of their own, the optimizer's by those of their parameters."""
    modules = {"model": state.model} if state.ema is None else {"model": state.model, "ema": state.ema.module}
    named = {f"{kind}.{name}": value for kind, part in modules.items() for name, value in part.state_dict().items()}
    for name, parameter in state.model.named_parameters():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            named[f"optimizer.{name}.{key}"] = value
    return named


class _Reader(FileSystemReader):
    """torch's own, but for an index that is read as plain data."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        content = (Path(self.path) / _METADATA).read_bytes()
        try:
            metadata: Metadata = _Unpickler(io.BytesIO(content)).load()
        except (pickle.UnpicklingError, EOFError, AttributeError, IndexError) as error:
            raise InputError(f"the checkpoint {self.path} cannot be read: {error}") from error
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def _member(kind: Any, name: str) -> Enum:
    if not (isinstance(kind, type) and issubclass(kind, Enum) and name in kind.__members__):
        raise pickle.UnpicklingError(f"it asks for {name}, which is no member of an enumeration")
    return kind[name]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            # Python up to 3.11.3 writes members of enumerations so.
            return _member
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not dtype and (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which no checkpoint needs")
        return super().find_class(module, name)
