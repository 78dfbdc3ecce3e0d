"""Training: recipes, the engine, checkpoints, evaluation and whole runs."""

from upchirp.training.checkpoint import load as load_checkpoint
from upchirp.training.config import TrainConfig, load_config, save_config
from upchirp.training.defaults import Settled, check_model
from upchirp.training.distributed import Ranks, open_ranks
from upchirp.training.engine import Settings, StepResult, run_segment
from upchirp.training.eval_job import SizedEvaluation, evaluate_weights
from upchirp.training.evaluate import Evaluation, EvaluationSet, View
from upchirp.training.events import (
    Evaluated,
    Event,
    Finished,
    Logged,
    Noted,
    Observer,
    Reduced,
    Saved,
    Selected,
    Started,
    Stepped,
    Working,
)
from upchirp.training.interruption import Interrupted
from upchirp.training.job import TrainResult, train
from upchirp.training.micro_batch import micro_batches
from upchirp.training.optim import create_ema, create_optimizer, set_learning_rate
from upchirp.training.planning import curriculum_for, make_plan, price, settle, with_selection
from upchirp.training.presets import RECIPES, REGIMES, Regime, recipe, recipe_name
from upchirp.training.pricing import estimate
from upchirp.training.recipe import Optimization, Recipe
from upchirp.training.run_folder import read_metrics, read_plan
from upchirp.training.state import State
from upchirp.training.validation import validate
from upchirp.training.weights import Weights, load_weights, read_weights

__all__ = [
    "RECIPES",
    "REGIMES",
    "Evaluated",
    "Evaluation",
    "EvaluationSet",
    "Event",
    "Finished",
    "Interrupted",
    "Logged",
    "Noted",
    "Observer",
    "Optimization",
    "Ranks",
    "Recipe",
    "Reduced",
    "Regime",
    "Saved",
    "Selected",
    "Settings",
    "Settled",
    "SizedEvaluation",
    "Started",
    "State",
    "StepResult",
    "Stepped",
    "TrainConfig",
    "TrainResult",
    "View",
    "Working",
    "Weights",
    "check_model",
    "create_ema",
    "create_optimizer",
    "curriculum_for",
    "estimate",
    "evaluate_weights",
    "load_checkpoint",
    "load_config",
    "load_weights",
    "make_plan",
    "open_ranks",
    "micro_batches",
    "price",
    "read_metrics",
    "read_plan",
    "read_weights",
    "recipe",
    "recipe_name",
    "run_segment",
    "save_config",
    "set_learning_rate",
    "settle",
    "train",
    "validate",
    "with_selection",
]
