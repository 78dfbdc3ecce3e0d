"""Settings that were asked for and have no effect beside the others."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from timm.optim import get_optimizer_info

from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.regimes import REGIMES

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class _Rule:
    """When settings have no effect, and why."""

    names: tuple[str, ...]
    idle: Callable[[Settings], bool]
    why: str
    """Ends the sentence; `{opt}` is the optimizer's name."""


_RULES = (
    _Rule(("opt_betas",), lambda c: not _knows(c, "betas"), "`opt={opt!r}` has none"),
    _Rule(("opt_eps",), lambda c: not _knows(c, "eps"), "`opt={opt!r}` has none"),
    _Rule(("momentum",), lambda c: not _knows(c, "momentum"), "`opt={opt!r}` has none"),
    _Rule(("sched_decay",), lambda c: c["sched"] != "wsd", "it belongs to `sched='wsd'`"),
    _Rule(("warmup_passes",), lambda c: c["warmup"] is not None, "`warmup` goes before it"),
    _Rule(
        ("lr_base", "lr_base_size", "lr_base_scale"), lambda c: c["lr"] is not None, "the rate does not follow from it"
    ),
    _Rule(("lr_cap",), lambda c: c["early_batch"] is None, "it bounds the rate of `early_batch`"),
    _Rule(("layer_groups",), lambda c: c["layer_decay"] is None, "it belongs to `layer_decay`"),
    _Rule(("model_ema_decay", "model_ema_warmup"), lambda c: not c["model_ema"], "it belongs to `model_ema=True`"),
    _Rule(("amp_dtype",), lambda c: not c["amp"], "it belongs to `amp=True`"),
    _Rule(("kd_temperature", "kd_alpha"), lambda c: c["kd_model"] is None, "it belongs to `kd_model`"),
    _Rule(("head_init_scale",), lambda c: c["keep_head"], "`keep_head=True` makes no new classifier"),
    _Rule(("select_prune", "select_until"), lambda c: c["select"] is None, "it belongs to `select='infobatch'`"),
    _Rule(
        ("replay_mode", "replay_images", "replay_gib", "replay_final"),
        lambda c: c["replay"] == 0 and not any(c["replay_stages"] or ()),
        "it belongs to `replay`",
    ),
    _Rule(("replay_final",), lambda c: c["replay_stages"] is not None, "`replay_stages` has no number for it"),
    _Rule(("randaug_std", "randaug_prob"), lambda c: c["randaug_layers"] == 0, "`randaug_layers` is 0"),
    _Rule(
        ("mixup_switch_prob",),
        lambda c: not (c["mixup"] and c["cutmix"]),
        "it chooses between `mixup` and `cutmix`, which are not both on",
    ),
    _Rule(("mixup_prob",), lambda c: not (c["mixup"] or c["cutmix"]), "`mixup` and `cutmix` are 0"),
    _Rule(("scale", "ratio"), lambda c: c["crop"] == "center", "`crop='center'` draws none"),
    _Rule(("smoothing",), lambda c: not REGIMES[c["regime"]].labelled, "a pre-training has no labels"),
)


def unused_settings(settings: Settings, asked: Collection[str]) -> list[str]:
    """A line on each setting that was asked for and changes nothing beside the others.

    One with the value that the recipe has anyway is none: whole files of settings name all of them.

    >>> unused_settings(TrainConfig.from_flat({"kd_alpha": 0.7}).to_flat(), {"kd_alpha"})
    ['`kd_alpha` is not used: it belongs to `kd_model`']
    """
    usual = TrainConfig.from_flat({name: settings[name] for name in ("recipe", "model", "regime")}).to_flat()
    changed = {name for name in asked if settings[name] != usual[name]}
    told: dict[str, str] = {}
    for rule in _RULES:
        if idle := [name for name in rule.names if name in changed and rule.idle(settings)]:
            why = rule.why.format(opt=settings["opt"])
            told |= {name: f"`{name}` is not used: {why}" for name in idle if name not in told}
    return list(told.values())


def _knows(settings: Settings, argument: str) -> bool:
    """Whether timm hands an argument to the optimizer."""
    return bool(getattr(get_optimizer_info(settings["opt"]), f"has_{argument}"))
