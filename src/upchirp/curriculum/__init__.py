"""Curricula and plans: what a run shows when, and in how many steps. No torch in here."""

from upchirp.curriculum.cost import Cost, CostTable, pixels
from upchirp.curriculum.curriculum import Axis, Curriculum, Operator, Phase, Setting
from upchirp.curriculum.early_batch import EarlyBatch
from upchirp.curriculum.files import counts_passes, load_curriculum, save_curriculum
from upchirp.curriculum.planning import mean_cost, plan
from upchirp.curriculum.plans import Plan
from upchirp.curriculum.presets import (
    PRESETS,
    PresetName,
    constant,
    efficienttrain,
    efficienttrain_plus_plus,
    efficienttrain_plus_plus_convnext,
    efficienttrain_plus_plus_deit,
    linear,
    preset,
)
from upchirp.curriculum.scaling import scaled
from upchirp.curriculum.schedule import LearningRate
from upchirp.curriculum.selection import Savings, Selection, expected_savings
from upchirp.curriculum.stage import Stage, Step

__all__ = [
    "PRESETS",
    "Axis",
    "Cost",
    "CostTable",
    "Curriculum",
    "EarlyBatch",
    "LearningRate",
    "Operator",
    "Phase",
    "Plan",
    "PresetName",
    "Savings",
    "Selection",
    "Setting",
    "Stage",
    "Step",
    "constant",
    "counts_passes",
    "efficienttrain",
    "efficienttrain_plus_plus",
    "efficienttrain_plus_plus_convnext",
    "efficienttrain_plus_plus_deit",
    "expected_savings",
    "linear",
    "load_curriculum",
    "mean_cost",
    "pixels",
    "plan",
    "preset",
    "save_curriculum",
    "scaled",
]
