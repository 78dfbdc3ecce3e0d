"""FSDP: the same run as with whole models, with checkpoints in parts."""

import io
import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.integration.ranks.conftest import finish, settings, small
from tests.runs import losses
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata

from upchirp import InputError, TrainConfig, train
from upchirp.training import load_checkpoint
from upchirp.training.parallel import part_files, sharded
from upchirp.training.parallel.part_files import stored_tensors

pytestmark = pytest.mark.slow

needs_sharding = pytest.mark.skipif(not sharded.is_available(), reason="FSDP needs torch 2.7")


@needs_sharding
def test_the_loss_curve_and_the_weights_are_those_of_one_rank(folder: Path) -> None:
    assert losses(folder / "sharded") == pytest.approx(losses(folder / "one"), rel=1e-4)
    assert losses(folder / "sharded", "evaluation") == pytest.approx(losses(folder / "one", "evaluation"), rel=1e-4)
    for name in ("model.safetensors", "model_ema.safetensors"):
        one, two = load_file(folder / "one" / name), load_file(folder / "sharded" / name)
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-5)


@needs_sharding
def test_a_stopped_run_goes_on_bit_by_bit(folder: Path) -> None:
    seen = json.loads((folder / "rank0.json").read_text())
    stopped, other = seen["sharded_signal"]
    assert "stopped after step 6" in stopped
    assert "parallel fsdp (now ddp)" in other
    for name in ("model.safetensors", "model_ema.safetensors"):
        one, two = load_file(folder / "sharded" / name), load_file(folder / "sharded_started" / name)
        assert all(torch.equal(one[key], two[key]) for key in one)


@needs_sharding
def test_another_number_of_ranks_goes_on(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "sharded", run)
    for path in [*run.glob("*.safetensors"), *run.glob("checkpoints/*12.pt")]:
        path.unlink()
    options = ["--parallel", "fsdp", "--resume", "auto", "--output", run]
    finish(1, "-m", "upchirp", "train", "--config", folder / "given.yaml", *options)
    assert losses(run) == pytest.approx(losses(folder / "sharded"), rel=1e-4)


@needs_sharding
def test_three_ranks_share_position_tables_that_change_with_the_bandwidth(image_folder: Path, tmp_path: Path) -> None:
    swin = {
        "model": "swin_tiny_patch4_window7_224", "final_size": 64, "epochs": 1, "batch_size": 24, "micro_batch": None,
        "model_kwargs": {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]},
    }  # fmt: skip
    train(settings(image_folder, tmp_path / "one", **swin))
    given = tmp_path / "given.yaml"
    given.write_text(yaml.safe_dump(small(image_folder, **swin)))
    options = ["--parallel", "fsdp", "--output", tmp_path / "three"]
    finish(3, "-m", "upchirp", "train", "--config", given, *options)
    assert losses(tmp_path / "three") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    for name in ("model.safetensors", "model_ema.safetensors"):
        one, three = load_file(tmp_path / "one" / name), load_file(tmp_path / "three" / name)
        torch.testing.assert_close(three, one, rtol=1e-3, atol=1e-5)


@needs_sharding
def test_damaged_parts_are_found(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "sharded" / "checkpoints", tmp_path / "checkpoints")
    path = sorted((tmp_path / "checkpoints").glob("step_*.pt"))[-1]
    assert load_checkpoint(path)["state"]["step"] == 12
    part = path.with_suffix("") / "__1_0.distcp"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged: the SHA-256 of .*__1_0.distcp"):
        load_checkpoint(path)
    part.unlink()
    with pytest.raises(InputError, match="cannot read the checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("module", "name"),
    [("builtins", "exec"), ("torch.distributed.checkpoint.filesystem", "os._exit"), ("torch", "load")],
)
def test_an_index_of_parts_runs_nothing(tmp_path: Path, module: str, name: str) -> None:
    call = pickle.STACK_GLOBAL + pickle.BININT1 + b"\x07" + pickle.TUPLE1 + pickle.REDUCE + pickle.STOP
    names = b"".join(pickle.SHORT_BINUNICODE + bytes([len(word)]) + word.encode() for word in (module, name))
    (tmp_path / "step_1").mkdir()
    (tmp_path / "step_1" / ".metadata").write_bytes(pickle.PROTO + b"\x04" + names + call)
    with pytest.raises(InputError, match=re.escape(f"{module}.{name}, which no checkpoint needs")):
        stored_tensors(tmp_path / "step_1.pt")


@needs_sharding
def test_only_finished_checkpoints_count(folder: Path) -> None:
    names = {path.name for path in (folder / "sharded" / "checkpoints").iterdir()}
    assert {name for name in names if "." not in name} == {Path(name).stem for name in names if name.endswith(".pt")}


def test_what_sharding_cannot_do_is_refused() -> None:
    for options, line in [({"compile": True}, "`compile`"), ({"micro_batch": "auto"}, "`micro_batch='auto'`")]:
        with pytest.raises(InputError, match=f"`parallel='fsdp'` does not go with {line}"):
            TrainConfig(parallel="fsdp", **options)


def test_members_of_enumerations_are_read_as_any_python_writes_them_and_no_other_attribute() -> None:
    class Written:
        """As Python 3.11.2 writes one."""

        def __init__(self, *asked: Any) -> None:
            self.asked = asked

        def __reduce__(self) -> Any:
            return getattr, self.asked

    def read(*asked: Any) -> Any:
        return part_files._Unpickler(io.BytesIO(pickle.dumps(Written(*asked)))).load()

    assert read(_MEM_FORMAT_ENCODING, "TORCH_PRESERVE_FORMAT") is _MEM_FORMAT_ENCODING.TORCH_PRESERVE_FORMAT
    for asked in ((Metadata, "__init__"), (_MEM_FORMAT_ENCODING, "__class__")):
        with pytest.raises(pickle.UnpicklingError, match="no member of an enumeration"):
            read(*asked)
