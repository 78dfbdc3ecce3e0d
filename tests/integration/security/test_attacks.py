"""Files from outside that try to run something, or to write where they should not."""

import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from upchirp import InputError, TrainConfig, train
from upchirp.cli import main
from upchirp.curriculum import load_curriculum
from upchirp.data import open_data
from upchirp.data.images.decoding import open_picture
from upchirp.data.packing import PackSettings, pack
from upchirp.training import EvalData, Event, Interrupted, Origin, Stepped, evaluate_weights, load_checkpoint
from upchirp.training.checkpoints import checkpoint

Make = Callable[..., TrainConfig]
PWNED = "pwned"


class Malicious:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, (f"touch {PWNED}",))


@pytest.fixture(autouse=True)
def nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every attack makes a file in the working folder if it succeeds."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / PWNED).exists(), "the file was run"


def sign(path: Path) -> None:
    """Give a checkpoint the right checksum, as an attacker does."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")


class Scripted(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def a_pickle(path: Path) -> None:
    torch.save({"state": Malicious(), "plan": {}}, path)


def an_old_pickle(path: Path) -> None:
    torch.save({"state": Malicious()}, path, _use_new_zipfile_serialization=False)


def a_program(path: Path) -> None:
    torch.jit.save(torch.jit.trace(Scripted(), torch.zeros(1)), path)


def a_list(path: Path) -> None:
    torch.save([torch.zeros(3)], path)


def an_empty_mapping(path: Path) -> None:
    torch.save({}, path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("write", [a_pickle, an_old_pickle, a_program, a_list, an_empty_mapping])
def test_a_checkpoint_with_a_valid_checksum(
    config: Make, image_folder: Path, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "step_000000001.pt"
    write(path)
    sign(path)
    uses = [
        lambda: train(config(resume=str(path))),
        lambda: train(config(weights=str(path), model="test_vit", regime="finetune")),
        lambda: evaluate_weights(Origin(weights=path, model="test_vit"), EvalData(data=str(image_folder))),
    ]
    for use in uses:
        with pytest.raises(InputError) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_a_checkpoint_that_lacks_parts_of_its_state(config: Make) -> None:
    run = config()

    def stop(event: Event) -> None:
        if isinstance(event, Stepped) and event.step.index == 2:
            import signal

            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        train(run, observers=[stop])
    path = next((run.output / "checkpoints").glob("step_*.pt"))
    content = load_checkpoint(path)
    for spoiled in (
        {name: value for name, value in content.items() if name != "state"},
        {**content, "state": {}},
        {**content, "state": 5},
        {**content, "train_seconds": "soon"},
        {name: value for name, value in content.items() if name != "best_top1"},
    ):
        checkpoint.save(spoiled, path)
        with pytest.raises(InputError) as caught:
            train(replace(run, resume="auto"))
        assert path.name in str(caught.value) or "another model or recipe" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_with_any_byte_altered_and_a_valid_checksum(tmp_path: Path) -> None:
    """Whatever it holds then: it is read as data, or refused in one line."""
    path = tmp_path / "step_000000001.pt"
    checkpoint.save({"step": 1, "weight": torch.arange(64.0), "name": "résumé", "more": [1, (2.5, None)]}, path)
    whole, rng = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 8])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        sign(path)
        try:
            checkpoint.load(path)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_weights_that_name_another_file_to_load(image_folder: Path, tmp_path: Path) -> None:
    """The description in a weights file makes the model; it must not make it load, or fetch, anything."""
    an_old_pickle(tmp_path / "evil.pth")
    for option, value in (
        ("checkpoint_path", str(tmp_path / "evil.pth")),
        ("pretrained", True),
        ("pretrained_cfg", {"file": str(tmp_path / "evil.pth")}),
        ("pretrained_cfg_overlay", {"file": str(tmp_path / "evil.pth")}),
        ("cache_dir", str(tmp_path)),
    ):
        described = {"model": "test_vit", "model_kwargs": {option: value}, "final_size": 64}
        path = tmp_path / "model.safetensors"
        save_file({"weight": torch.zeros(3)}, path, metadata={"described": json.dumps(described)})
        with pytest.raises(InputError, match=f"`model_kwargs` cannot set {option}"):
            evaluate_weights(Origin(weights=path), EvalData(data=str(image_folder)))
        with pytest.raises(InputError, match=f"`model_kwargs` cannot set {option}"):
            TrainConfig.from_flat({"weights": str(path)})


@pytest.mark.parametrize(
    "text",
    [
        f"!!python/object/apply:os.system ['touch {PWNED}']\n",
        f"model: !!python/object/apply:os.system ['touch {PWNED}']\n",
        f"phases: !!python/object/new:os.system ['touch {PWNED}']\n",
    ],
)
def test_yaml_that_makes_objects(config: Make, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "given.yaml"
    path.write_text(text)
    assert main(["train", "--config", str(path)]) == 2
    assert main(["plan", "--curriculum", str(path), "--dataset-size", "1000"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    with pytest.raises(InputError):
        load_curriculum(str(path), 64)
    run = config(resume="auto")
    run.output.mkdir()
    (run.output / "config.yaml").write_text(text)
    with pytest.raises(InputError):
        train(run)


def test_a_postscript_program_named_as_an_image(config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands such files to Ghostscript, a program that runs what they say."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / PWNED}\necho 10.0\n")
    (tools / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\n(evil) run\n%%EOF\n"
    with pytest.raises(OSError, match="PostScript"):
        open_picture(program).whole()


def attack_tar(path: Path) -> None:
    """A WebDataset shard with names that lead elsewhere, and links."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (48, 40), (200, 30, 30)).save(buffer, "JPEG")
    with tarfile.open(path, "w") as archive:
        for key in ("../../outside", "/tmp/upchirp-absolute", "a/../../b", "plain"):
            for name, data in ((f"{key}.jpg", buffer.getvalue()), (f"{key}.cls", b"0")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        for kind, name in ((tarfile.SYMTYPE, "link.jpg"), (tarfile.LNKTYPE, "hard.jpg"), (tarfile.CHRTYPE, "dev.jpg")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "../../../etc/passwd"
            archive.addfile(member)


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_tar_members_that_lead_elsewhere(tmp_path: Path) -> None:
    data = tmp_path / "deep" / "er" / "data"
    data.mkdir(parents=True)
    for split in ("train", "val"):
        attack_tar(data / f"{split}-000000.tar")
    before = files(tmp_path)
    for source in open_data(data):
        # Links and devices are passed over.
        assert len(source) == 4
        assert all(source.load(index)[0].whole().size == (48, 40) for index in range(4))
    output = tmp_path / "deep" / "er" / "packed"
    pack(data, output, PackSettings(sizes=(32,)), workers=1)
    new = files(tmp_path) - before
    # The indexes of the shards, and what was asked for.
    assert all(output in path.parents or path.parent == data for path in new)
    for shard in output.rglob("*.tar"):
        with tarfile.open(shard) as archive:
            assert all("/" not in member.name and member.isreg() for member in archive)
    assert not Path("/tmp/upchirp-absolute.jpg").exists()


def test_a_hugging_face_folder_with_a_loading_script(image_folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    paths = [str(path) for path in sorted((image_folder / "train").rglob("*.jpg"))[::16]]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    labels = [place * 2 // len(paths) for place in range(len(paths))]
    saved = datasets.Dataset.from_dict({"image": paths, "label": labels}, features=features)
    root = tmp_path / "hub"
    (root / "data").mkdir(parents=True)
    for split in ("train", "validation"):
        saved.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    for name in ("hub.py", "dataset_infos.json", "README.md", "__init__.py"):
        (root / name).write_text(f"import os\nos.system('touch {tmp_path / PWNED}')\n")
    train_images, _ = open_data(root)
    assert len(train_images) == len(paths)


def test_names_of_classes_that_are_markup_or_control_a_terminal(
    config: Make, tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the data folder through a comparison to its report."""
    evil = "<script>alert(1)</script>$\\frac{\x1b[2J[/red][bold]"
    root = tmp_path / evil.replace("/", "\u2215")
    for split in ("train", "val"):
        for number, name in enumerate(("cat", "dog")):
            target = root / split / f"{number}{root.name}"
            target.mkdir(parents=True)
            for path in (image_folder / split / name).iterdir():
                (target / path.name).symlink_to(path)
    code = main(
        [
            "compare", "--data", str(root), "--model", "test_vit", "--model-kwargs", "depth=1", "--final-size", "64",
            "--recipe", "light", "--epochs", "2", "--batch-size", "32", "--workers", "0", "--device", "cpu",
            "--evaluations", "1", "--curricula", "constant", "linear", "--budgets", "1.0", "--seeds", "0",
            "--output", str(tmp_path / "compared"),
        ]
    )  # fmt: skip
    told = capsys.readouterr()
    assert code == 0, told.err
    page = (tmp_path / "compared" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b[2J" not in told.out + told.err
    assert "[bold]" in "".join(told.out.split())
    weights = load_file(next((tmp_path / "compared").rglob("model.safetensors")))
    assert weights
