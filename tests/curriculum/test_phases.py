"""What a phase may carry beside its bandwidth: Sections 4.1 to 4.3, Tables 2, 3, 4 and 19 (b)."""

from pathlib import Path

import pytest

from upchirp import Curriculum, InputError, Phase, Plan, load_curriculum, plan
from upchirp.curriculum import save_curriculum, scaled


def file_of(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_table_4_a_weaker_augmentation_in_the_first_half(tmp_path: Path) -> None:
    text = """
        axis: samples
        magnitude: [9, 9]
        phases:
          - {end: 0.5, bandwidth: 128, magnitude: 5}
          - {end: 0.75, bandwidth: 224}
          - {end: 1.0, bandwidth: 224, magnitude: [9, 3]}
    """
    curriculum = load_curriculum(file_of(tmp_path, text), 224)
    assert [curriculum.at(progress).magnitude for progress in (0.0, 0.49, 0.5, 0.875)] == [5.0, 5.0, 9.0, 6.0]
    run = plan(curriculum, epochs=4, dataset_size=6400, batch_size=64)
    assert [stage.magnitude for stage in run.stages] == [(5.0, 5.0), (9.0, 9.0), (9.0, 3.0)]
    assert {step.magnitude for step in run.steps() if step.bandwidth == 128} == {5.0}
    # The last step is one step short of the end.
    assert run.step(run.total_steps - 1).magnitude == pytest.approx(3.0, abs=0.07)


def test_a_ramp_goes_on_where_a_phase_has_no_magnitude_of_its_own() -> None:
    phases = (Phase(end=0.5, bandwidth=96, magnitude=(0, 1)), Phase(end=1.0, bandwidth=224))
    curriculum = Curriculum(name="mine", axis="compute", phases=phases)
    assert [curriculum.at(progress).magnitude for progress in (0.25, 0.75)] == [0.5, 6.75]


def test_table_2_a_filter_at_the_full_size_costs_what_the_size_costs(tmp_path: Path) -> None:
    text = "axis: samples\nphases: [{end: 0.25, bandwidth: 224, radius: 40}, {end: 1.0, bandwidth: 224}]"
    run = plan(load_curriculum(file_of(tmp_path, text), 224), epochs=300)
    assert [stage.radius for stage in run.stages] == [40.0, None]
    assert run.step(0).radius == 40.0 and run.step(run.total_steps - 1).radius is None
    assert run.equivalent_epochs == pytest.approx(300, abs=0.01)
    assert "224 r=40" in str(run)


def test_table_3_first_row_trains_below_the_final_size_to_the_end(tmp_path: Path) -> None:
    text = "axis: samples\nmagnitude: [9, 9]\nfinal_size: 224\nphases: [{end: 1.0, bandwidth: 96}]"
    curriculum = load_curriculum(file_of(tmp_path, text), 224)
    assert (curriculum.final_size, curriculum.bandwidths, curriculum.sizes) == (224, (96,), (96, 224))
    run = plan(curriculum, epochs=300)
    # 0.18 of the cost at 224 (Table 3 counts FLOPs of DeiT-S; of pixels it is (96/224)^2).
    assert run.equivalent_epochs / 300 == pytest.approx((96 / 224) ** 2, abs=1e-4)
    assert Plan.from_dict(run.to_dict()) == run


def test_all_of_it_survives_a_file_and_scaling(tmp_path: Path) -> None:
    phases = (
        Phase(end=0.2, bandwidth=28, operator="nearest"),
        Phase(end=0.4, bandwidth=28, magnitude=3.0),
        Phase(end=0.7, bandwidth=64, radius=12.5, magnitude=(3.0, 6.0)),
        Phase(end=1.0, bandwidth=46, operator="crop"),
    )
    curriculum = Curriculum(name="mine", axis="samples", phases=phases, test_size=64)
    path = tmp_path / "saved.yaml"
    save_curriculum(curriculum, path)
    assert load_curriculum(path, 64) == curriculum
    twice = scaled(curriculum, 128, multiple=2)
    assert [phase.bandwidth for phase in twice.phases] == [56, 56, 128, 92]
    assert [(phase.radius, phase.magnitude, phase.operator) for phase in twice.phases] == [
        (phase.radius, phase.magnitude, phase.operator) for phase in phases
    ]
    run = plan(curriculum, epochs=4, dataset_size=6400, batch_size=64)
    assert [stage.operator for stage in run.stages] == ["nearest", None, None, "crop"]
    assert Plan.from_dict(run.to_dict()) == run


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ("operator: area", "operator 'area' is unknown: choose one of lanczos, crop, nearest, bilinear, bicubic"),
        ("radius: -1", "radius -1"),
        ("radius: wide", "radius a number"),
        ("magnitude: 11", "it must lie in 0 to 10"),
        ("magnitude: [1, 2, 3]", r"a number or \[first, last\]"),
        ("filter: 3", "unknown key filter: the keys are bandwidth, end, magnitude, operator, radius, transform"),
    ],
)
def test_a_bad_phase_gets_one_line_that_names_it(tmp_path: Path, phase: str, message: str) -> None:
    text = f"phases:\n- {{end: 0.5, bandwidth: 96}}\n- {{end: 1.0, bandwidth: 224, {phase}}}"
    with pytest.raises(InputError, match=f"phase 2: .*{message}"):
        load_curriculum(file_of(tmp_path, text), 224)


def test_a_bandwidth_above_a_file_s_own_final_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bandwidth 256 is above the final size, 224"):
        load_curriculum(file_of(tmp_path, "final_size: 224\nphases: [{end: 1.0, bandwidth: 256}]"), 224)
