import pytest
from hypothesis import given
from hypothesis import strategies as st

from upchirp.curriculum import preset


@given(st.sampled_from([64, 96, 128, 224, 288]), st.floats(0, 1, exclude_max=True))
def test_composers_sizes_are_its_documented_formula(final_size: int, progress: float) -> None:
    # scale 0.5 until 0.5, linear to 1 at 0.8; the width is pinned to a multiple of 4.
    scale = 0.5 + 0.5 * min(max(progress - 0.5, 0) / 0.3, 1)
    exact = final_size * scale / 4
    found = preset("composer_progressive", final_size).at(progress)
    assert found.bandwidth == round(exact) * 4 or abs(exact % 1 - 0.5) < 1e-6  # at a boundary either side is right
    assert found.operator == ("nearest" if found.bandwidth < final_size else None)
    assert found.magnitude == 9


@pytest.mark.parametrize(
    ("final_size", "multiple", "sides"), [(64, 32, [32, 64]), (64, 16, [32, 48, 64]), (6, 1, [4, 6]), (16, 16, [16])]
)
def test_composers_steps_are_those_that_the_model_takes(final_size: int, multiple: int, sides: list[int]) -> None:
    made = preset("composer_progressive", final_size, multiple=multiple)
    assert [phase.bandwidth for phase in made.phases] == sides


def test_training_small_is_tested_at_the_final_size() -> None:
    made = preset("train_small", 64, multiple=2)
    assert ([phase.bandwidth for phase in made.phases], made.final_size) == ([46], 64)
