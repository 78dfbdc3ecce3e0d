"""timm's training script by curriculum: what takes the place of its loader and of its scheduler."""

from upchirp.timm.following import CurriculumLoader, CurriculumScheduler
from upchirp.timm.script import curriculum_loader

__all__ = ["CurriculumLoader", "CurriculumScheduler", "curriculum_loader"]
