from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upchirp import Curriculum, InputError, Phase, load_curriculum, preset
from upchirp.curriculum import PRESETS, save_curriculum, scaled

progress = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("at", "bandwidth"), [(0.0, 96), (0.199, 96), (0.2, 160), (0.599, 160), (0.6, 224), (0.999, 224)]
)
def test_efficienttrain_plus_plus_is_table_6(at: float, bandwidth: int) -> None:
    setting = preset("efficienttrain_plus_plus").at(at)
    assert setting.bandwidth == bandwidth
    assert setting.magnitude == pytest.approx(9 * at)


@pytest.mark.parametrize(("epoch", "bandwidth"), [(1, 160), (180, 160), (181, 192), (240, 192), (241, 224), (300, 224)])
def test_efficienttrain_is_table_5(epoch: int, bandwidth: int) -> None:
    curriculum = preset("efficienttrain")
    assert curriculum.axis == "samples"
    assert curriculum.at((epoch - 1) / 300).bandwidth == bandwidth


def test_deit_variant_is_the_released_schedule() -> None:
    curriculum = preset("efficienttrain_plus_plus_deit")
    assert [(phase.end, phase.bandwidth) for phase in curriculum.phases] == [
        (0.2, 96),
        (0.6, 160),
        (0.8, 192),
        (1.0, 224),
    ]


def test_convnext_exception_replaces_96_by_160() -> None:
    curriculum = preset("efficienttrain_plus_plus_convnext")
    assert [(phase.end, phase.bandwidth) for phase in curriculum.phases] == [(0.6, 160), (1.0, 224)]
    larger = preset("efficienttrain_plus_plus_convnext", 384, multiple=32)
    assert larger.bandwidths == (160, 224, 384)


@pytest.mark.parametrize(
    ("name", "final_size", "multiple", "expected"),
    [
        # Table 6's rule above 224: 96, (96 + gamma) / 2, gamma. For multiples of 32, 240
        # is as near to 224 as to 256 and nearer in compute, and 304 to 288.
        ("efficienttrain_plus_plus", 384, 16, [96, 240, 384]),
        ("efficienttrain_plus_plus", 384, 32, [96, 224, 384]),
        ("efficienttrain_plus_plus", 512, 32, [96, 288, 512]),
        # Table 5's: 160, (160 + gamma) / 2, gamma.
        ("efficienttrain", 384, 16, [160, 272, 384]),
        # Proportional below: 64 * 96 / 224 = 27.4 and 64 * 160 / 224 = 45.7.
        ("efficienttrain_plus_plus", 64, 1, [27, 46, 64]),
        ("efficienttrain_plus_plus", 64, 2, [28, 46, 64]),
        ("efficienttrain_plus_plus", 64, 8, [24, 48, 64]),
        ("constant", 96, 32, [96]),
    ],
)
def test_any_final_size(name: str, final_size: int, multiple: int, expected: list[int]) -> None:
    assert [phase.bandwidth for phase in preset(name, final_size, multiple=multiple).phases] == expected


@given(st.sampled_from(sorted(PRESETS)), st.integers(1, 40), st.sampled_from([1, 2, 8, 14, 16, 32]), progress)
def test_presets_rise_to_the_final_size(name: str, count: int, multiple: int, at: float) -> None:
    curriculum = preset(name, count * multiple, multiple=multiple)
    sides = [phase.bandwidth for phase in curriculum.phases]
    assert sides == sorted(set(sides))
    assert curriculum.final_size == count * multiple
    assert sides[-1] == curriculum.final_size or name == "train_small"
    assert all(side % multiple == 0 for side in sides)
    assert curriculum.at(at).bandwidth in sides


@given(
    st.lists(st.floats(0.01, 0.99), unique=True, max_size=5),
    st.data(),
    progress,
)
def test_at_is_the_phase_that_holds_the_progress(inner: list[float], data: st.DataObject, at: float) -> None:
    ends = [*sorted(inner), 1.0]
    sides = data.draw(st.lists(st.integers(1, 512), min_size=len(ends), max_size=len(ends)))
    phases = tuple(Phase(end=end, bandwidth=side) for end, side in zip(ends, sides, strict=True))
    curriculum = Curriculum(name="any", axis="compute", phases=phases)
    expected = next(side for end, side in zip(ends, sides, strict=True) if at < end)
    assert curriculum.at(at).bandwidth == expected


def test_file_round_trip(tmp_path) -> None:
    curriculum = preset("efficienttrain_plus_plus_deit")
    save_curriculum(curriculum, tmp_path / "mine.yaml")
    assert load_curriculum(tmp_path / "mine.yaml", 224, multiple=32) == curriculum


@st.composite
def curricula(draw: st.DrawFn) -> Curriculum:
    """Any curriculum whose last bandwidth is the largest."""
    inner = draw(st.lists(st.integers(1, 99), max_size=4, unique=True))
    ends = [*(end / 100 for end in sorted(inner)), 1.0]
    sides = draw(st.lists(st.integers(1, 512), min_size=len(ends), max_size=len(ends)))
    sides[-1] = max(sides)
    phases = tuple(Phase(end=end, bandwidth=side) for end, side in zip(ends, sides, strict=True))
    return Curriculum(name="any", axis="compute", phases=phases)


def merged(curriculum: Curriculum) -> Curriculum:
    """The same with neighbours of one bandwidth as one phase."""
    kept = [
        phase
        for phase, after in zip(curriculum.phases, [*curriculum.phases[1:], None], strict=True)
        if after is None or after.bandwidth != phase.bandwidth
    ]
    return replace(curriculum, phases=tuple(kept))


def test_a_file_that_scales_serves_every_final_size_and_model(tmp_path) -> None:
    path = tmp_path / "found.yaml"
    save_curriculum(preset("efficienttrain_plus_plus", 64), path, scales=True, comment="found\n\nby a search")
    assert path.read_text().startswith("# found\n#\n# by a search\n")
    assert load_curriculum(path, 64) == preset("efficienttrain_plus_plus", 64)
    # 27/64 and 46/64 of the final size, in multiples of what the model takes; both round to 16 for 32 px.
    assert load_curriculum(path, 256, multiple=32).bandwidths == (96, 192, 256)
    assert [phase.end for phase in load_curriculum(path, 48, multiple=16).phases] == [0.2, 0.6, 1.0]
    assert [(phase.end, phase.bandwidth) for phase in load_curriculum(path, 32, multiple=16).phases] == [
        (0.6, 16),
        (1.0, 32),
    ]
    with pytest.raises(InputError, match="take 32 or 64"):
        load_curriculum(path, 50, multiple=32)


@given(curricula(), st.integers(1, 8), st.sampled_from([1, 2, 7, 16, 32]))
def test_scaling_keeps_the_ends_and_the_order(curriculum: Curriculum, size: int, multiple: int) -> None:
    found = scaled(curriculum, size * multiple, multiple=multiple)
    assert found.final_size == size * multiple
    assert {phase.end for phase in found.phases} <= {phase.end for phase in curriculum.phases}
    assert all(1 <= side <= max(size * multiple, 1) and side % multiple == 0 for side in found.bandwidths)
    assert scaled(curriculum, curriculum.final_size) == merged(curriculum)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("phases: [{end: 1.0, bandwidth: 224}]\nscales: 2", "true or false"),
        ("phases: [{end: 1.0, bandwidth: 224}]\nspeed: 2", "unknown key speed"),
        ("name: x", "phases missing"),
        ("name: on\nphases: [{end: 1.0, bandwidth: 224}]", "name is True, .* write it in quotes"),
        ("phases: []", "list of"),
        ("phases: [{end: 1.0}]", "bandwidth missing"),
        ("phases: [{end: 0.5, bandwidth: 224}]", "must end at 1"),
        (
            "phases: [{end: 0.5, bandwidth: 96}, {end: 0.4, bandwidth: 160}, {end: 1, bandwidth: 224}]",
            "must rise",
        ),
        ("phases: [{end: .nan, bandwidth: 96}, {end: 1, bandwidth: 224}]", "must rise"),
        ("phases: [{end: 1.0, bandwidth: 22.5}]", "whole number"),
        ("phases: [{end: one, bandwidth: 224}]", "number from 0 to 1"),
        ("phases: [{end: 1.0, bandwidth: 224}]\naxis: time", "choose one of compute, samples"),
        ("phases: [{end: 1.0, bandwidth: 224}]\nmagnitude: [0, 30]", "0 to 10"),
        ("phases: [{end: 1.0, bandwidth: 224}]\nmagnitude: 9", "magnitude is"),
        ("phases: [{end: 1.0, bandwidth: 192}]", "ends at bandwidth 192, but the final size is 224"),
        ("final_size: 256\nphases: [{end: 1.0, bandwidth: 192}]", "for the final size 256, and the final size is 224"),
        ("phases: [{end: 0.5, bandwidth: 100}, {end: 1.0, bandwidth: 224}]", "not a multiple of 32"),
        ("phases: [", "not valid YAML"),
        ("- 1", "found list"),
    ],
)
def test_bad_file_gets_one_line(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_curriculum(path, 224, multiple=32)
    assert "\n" not in str(caught.value)


def test_missing_file_and_misspelt_name(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        load_curriculum(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="did you mean efficienttrain_plus_plus"):
        load_curriculum("efficienttrain_plusplus")


@pytest.mark.parametrize("at", [-0.1, 1.0, float("nan")])
def test_progress_outside_the_run_is_refused(at: float) -> None:
    with pytest.raises(InputError, match="must lie in"):
        preset("constant").at(at)


def test_final_size_the_model_cannot_take_names_its_neighbours() -> None:
    with pytest.raises(InputError, match="take 192 or 224"):
        preset("efficienttrain_plus_plus", 200, multiple=32)
