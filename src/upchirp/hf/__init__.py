"""Hugging Face's `Trainer` by curriculum.

    trainer = upchirp.hf.CurriculumTrainer(model, args, plan=plan, train_dataset=train, eval_dataset=val)
    trainer.train()

Any model that takes `pixel_values` and gives `logits`: those of transformers, and timm's by
`TimmWrapperForImageClassification`.
"""

from upchirp.hf.adapted import as_classifier
from upchirp.hf.trainer import CurriculumTrainer

__all__ = ["CurriculumTrainer", "as_classifier"]
