"""The script that measures on a GPU, small and on the CPU: whether it is ready to run."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from upchirp.cli import main
from upchirp.models import count_flops, create_model
from upchirp.training.probing import preparing

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def gpu(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("gpu")


@pytest.fixture
def run(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    real = torch.compile

    def as_it_is(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable:
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, dynamic: real(model, dynamic=dynamic, backend=as_it_is))
    torch.compiler.reset()
    # Two blocks of six: each graph is traced through all of them.
    monkeypatch.setattr(gpu, "create_model", partial(create_model, depth=2))

    def execute(*arguments: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["benchmarks/gpu.py", "--device", "cpu", "--small", "--json", *arguments])
        gpu.main()
        return json.loads(capsys.readouterr().out)

    return execute


def test_all_sections_in_one_call(
    run: Run, gpu: ModuleType, load_benchmark: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    record = run("--peak-tflops", "0.5", "--modes", "compiled", "eager")
    assert record["hardware"]["accelerator"] is None
    assert record["command"].startswith("python benchmarks/gpu.py")

    for name, checked in record["checks"]["models"].items():
        assert checked["fused_optimizer"], name
        assert checked["graphs"] == {"compiled": 2, "eager": 0}
        assert checked["losses"]["compiled"] == pytest.approx(checked["losses"]["eager"], rel=2e-2)
    assert record["checks"]["crop_errors"]["32 float32"] < 1e-5
    assert record["checks"]["crop_errors"]["32 bfloat16"] < 1e-2

    for name, measured in record["speed"]["models"].items():
        assert measured["modes"].keys() == {"compiled", "eager"}
        flops = count_flops(gpu.create_model(name, num_classes=1000, final_size=64), 32)
        at_32 = measured["modes"]["eager"]["32"]
        # Forward and backward are three forward passes, and a multiply-add is two operations.
        assert at_32["tflops"] == pytest.approx(6 * flops * at_32["images_per_second"] / 1e12)
        assert at_32["share_of"]["peak_tflops"] == pytest.approx(at_32["tflops"] / 0.5)

    for switched in record["switch"].values():
        assert switched["lost_seconds"].keys() == {"32", "64"}
        assert switched["ahead"].startswith("compiled 2 graphs, for 32, 64 px")

    crops = record["crop"]["crops"]
    assert crops.keys() == {"bfloat16 32", "float32 32"}
    # Two images of three channels, read at 64 x 64 and written at 32 x 32.
    moved = 4 * 2 * 3 * (64**2 + 32**2)
    floor = crops["float32 32"]["floor_ms"] / 1e3
    assert floor == pytest.approx(moved / (record["crop"]["copy_gb_per_second"] * 1e9))
    assert crops["float32 32"]["ratio"] == pytest.approx(crops["float32 32"]["ms"] / 1e3 / floor)

    file = tmp_path / "gpu.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    work = load_benchmark("scaling").read_workload(file, "test_vit")
    assert work.seconds_per_image.keys() == {32, 64}
    assert work.parameters == record["speed"]["models"]["test_vit"]["parameters"]


def test_speedup_is_a_comparison_over_seeds(run: Run, image_folder: Path, tmp_path: Path) -> None:
    record = run(
        "--sections", "speedup", "--data", str(image_folder), "--output", str(tmp_path / "runs"), "--epochs", "2",
        "--batch-size", "32", "--workers", "0", "--speedup-model", "test_vit", "--budgets", "1",
        "--seeds", "0", "1",
    )["speedup"]  # fmt: skip
    assert record["seeds"] == [0, 1]
    assert [(made["curriculum"], len(made["accuracy"])) for made in record["runs"]] == [
        ("constant", 2), ("efficienttrain_plus_plus", 2),
    ]  # fmt: skip
    assert record["speedups"].keys() == {"efficienttrain_plus_plus"}


def test_speedup_needs_images(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--sections", "speedup")
    assert "give --data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756.5), ("NVIDIA L40S", 362.0), ("NVIDIA L4", 121.0)],
)
def test_published_peaks_go_by_the_devices_name(gpu: ModuleType, name: str, peak: float) -> None:
    assert gpu.published_peak(name) == peak
    assert gpu.published_peak("another device") is None


def test_sections_are_stopped_and_what_they_found_is_kept(
    load_benchmark: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def endless(found: dict[str, Any], keep: Callable[[], None]) -> None:
        found["first"] = 1
        keep()
        assert json.loads(file.read_text())["slow"] == {"first": 1}
        time.sleep(60)

    def failing(found: dict[str, Any], keep: Callable[[], None]) -> None:
        found["first"] = 2
        raise ValueError("no such device")

    file = tmp_path / "found.json"
    results = load_benchmark("sections").Results({}, file, 5)
    results.run("slow", 0.1, endless)
    results.run("broken", 1, failing)
    stored = json.loads(file.read_text())
    assert stored["slow"] == {"first": 1, "stopped_after_s": 0.1}
    assert stored["broken"] == {"first": 2, "failed": "ValueError: no such device"}
    assert "slow: time is up" in capsys.readouterr().err


def test_the_loader_is_measured_by_who_prepares(
    load_benchmark: Callable[[str], ModuleType], image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeding = load_benchmark("feeding")
    feed = feeding.make_feed(image_folder, tmp_path / "fed", torch.device("cpu"), 0, [24, 16], small=True)
    feed = dataclasses.replace(feed, seconds=0.01)
    found: dict[str, Any] = {}
    feeding.loader(feed, found, lambda: None)
    assert found.keys() == {"files", "packed"}
    for by_side in found.values():
        assert by_side.keys() == {"16", "24"}
        for figures in by_side.values():
            assert figures["cpu"]["images_per_second"] > 0 < figures["device"]["images_per_second"]

    monkeypatch.setattr(preparing, "_SECONDS", 0.01)
    chosen: dict[str, Any] = {}
    feeding.choice(dataclasses.replace(feed, sides=(32, 64), workers=0), ["test_vit"], chosen, lambda: None)
    assert chosen["test_vit"]["line"].startswith(f"`prepare='{chosen['test_vit']['prepare']}'`: ")


def test_whole_trainings_are_asked_for_and_read(
    load_benchmark: Callable[[str], ModuleType], image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feeding = load_benchmark("feeding")
    feed = feeding.Feed(
        files=[], folder=tmp_path, device=torch.device("cpu"), workers=3, images=9, sides=(16, 32), batch_size=8,
        seconds=1.0,
    )  # fmt: skip
    words = feeding.arguments(feed, str(image_folder), "test_vit", "constant", "1.5", "device", "OUT")
    assert main([*words, "--print-config"]) == 0
    asked = yaml.safe_load(capsys.readouterr().out)
    assert (asked["epochs"], asked["prepare"], asked["report"]) == (1.5, "device", False)
    lines = [
        {"kind": "train", "bandwidth": side, "train_seconds": end, "images_per_second": rate, "wait_share": 0.5}
        for side, end, rate in ((16, 2.0, 10.0), (16, 3.0, 40.0), (32, 5.0, 5.0))
    ]
    figures = feeding.of_log([*lines, {"kind": "end", "train_seconds": 6.0}])
    assert figures["train_seconds"] == 6.0
    assert figures["16"] == {
        "seconds": 3.0, "images_per_second": 20.0, "first_window": 10.0, "later_windows": 40.0, "waiting": 0.5,
    }  # fmt: skip
    assert figures["32"]["later_windows"] is None
