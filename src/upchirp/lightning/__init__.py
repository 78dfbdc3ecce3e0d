"""Lightning by curriculum: a data module that loads a plan's batches, and a callback that keeps the model in step.

    data = upchirp.lightning.CurriculumData(train, val, plan)
    trainer = Trainer(max_epochs=1, callbacks=[upchirp.lightning.Curriculum()])
    trainer.fit(module, datamodule=data)

The module stays as it is: `training_step` gets images and the shares of the classes, `validation_step` images of the
final size and labels, so that `cross_entropy(self(images), targets)` is right in both. Whichever of `lightning` and
`pytorch_lightning` is imported first is the one that is used.
"""

from upchirp.lightning.callback import Curriculum, fit_to_checkpoint
from upchirp.lightning.data import CurriculumData

__all__ = ["Curriculum", "CurriculumData", "fit_to_checkpoint"]
