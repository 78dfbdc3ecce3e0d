"""Training: recipes, the engine, checkpoints, evaluation and whole runs."""

from upchirp.training.checkpoints.checkpoint import load as load_checkpoint
from upchirp.training.checkpoints.loading import load_weights
from upchirp.training.checkpoints.weights import Weights, read_weights
from upchirp.training.engine.label_scores import LabelScores
from upchirp.training.engine.multi_label import MultiLabel
from upchirp.training.engine.step import StepResult
from upchirp.training.engine.task import Classification, Ranked, Task
from upchirp.training.engine.trainer import Trainer
from upchirp.training.evaluation.class_table import read_thresholds
from upchirp.training.evaluation.evaluation import Evaluation, View
from upchirp.training.evaluation.images import EvaluationSet
from upchirp.training.evaluation.sized import SizedEvaluation
from upchirp.training.evaluation.validation import validate
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
from upchirp.training.folders.interruption import Interrupted
from upchirp.training.folders.run_folder import read_metrics, read_plan
from upchirp.training.jobs.eval_job import evaluate_weights
from upchirp.training.jobs.predict_job import Guess, Prediction, predict
from upchirp.training.jobs.pricing import estimate
from upchirp.training.jobs.probe_job import probe_weights
from upchirp.training.jobs.train_job import TrainResult, train
from upchirp.training.parallel.ranks import Ranks, open_ranks
from upchirp.training.parallel.state import State
from upchirp.training.probing.micro_batch import micro_batches
from upchirp.training.probing.planning import curriculum_for, make_plan, settle
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.config_file import load_config, save_config
from upchirp.training.recipes.defaults import Settled, check_model
from upchirp.training.recipes.eval_groups import EvalData, EvalLoading, EvalPreprocessing, Frequencies, Origin
from upchirp.training.recipes.named import RECIPES, recipe, recipe_name
from upchirp.training.recipes.optimizer import create_ema, create_optimizer, follow, set_learning_rate
from upchirp.training.recipes.recipe import Optimization, Recipe
from upchirp.training.recipes.regimes import REGIMES, Regime

__all__ = [
    "RECIPES",
    "REGIMES",
    "Classification",
    "EvalData",
    "EvalLoading",
    "EvalPreprocessing",
    "Evaluated",
    "Evaluation",
    "EvaluationSet",
    "Event",
    "Finished",
    "Frequencies",
    "Guess",
    "Interrupted",
    "LabelScores",
    "Logged",
    "MultiLabel",
    "Noted",
    "Observer",
    "Optimization",
    "Origin",
    "Prediction",
    "Ranked",
    "Ranks",
    "Recipe",
    "Reduced",
    "Regime",
    "Saved",
    "Selected",
    "Settled",
    "SizedEvaluation",
    "Started",
    "State",
    "StepResult",
    "Stepped",
    "Task",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "View",
    "Working",
    "Weights",
    "check_model",
    "create_ema",
    "create_optimizer",
    "curriculum_for",
    "estimate",
    "evaluate_weights",
    "follow",
    "load_checkpoint",
    "load_config",
    "load_weights",
    "make_plan",
    "micro_batches",
    "open_ranks",
    "predict",
    "probe_weights",
    "read_metrics",
    "read_plan",
    "read_thresholds",
    "read_weights",
    "recipe",
    "recipe_name",
    "save_config",
    "set_learning_rate",
    "settle",
    "train",
    "validate",
]
