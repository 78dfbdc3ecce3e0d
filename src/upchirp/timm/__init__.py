"""timm's training script by curriculum: what takes the place of its loader and of its scheduler.

    loader_train = upchirp.timm.curriculum_loader(args, dataset_train, model)
    lr_scheduler = upchirp.timm.CurriculumScheduler(optimizer, loader_train, task)

All else stays: the script's functions for training and validation, its saver, its arguments.
"""

from upchirp.lazy import exports

__getattr__, __dir__ = exports(__name__)
