"""Hugging Face's Trainer by curriculum.

The lines marked `# upchirp` are what the curriculum takes. Run it with

    pip install 'upchirp[transformers]'
    python examples/hf_trainer.py --data DIR                               # DIR holds train/CLASS/* and val/CLASS/*
    torchrun --nproc-per-node 8 examples/hf_trainer.py --data DIR          # each process takes its share of a batch

Run again, it goes on from the last checkpoint at the very step. A model of transformers does as well, such as
`ViTForImageClassification`.
"""

import argparse
from typing import Any

from timm import get_pretrained_cfg
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

import upchirp
from upchirp.hf import CurriculumTrainer, as_classifier  # upchirp


def main(
    data: str,
    output: str = "hf_trainer",
    *,
    model: str = "vit_tiny_patch16_224",
    size: int = 224,
    epochs: float = 90.0,
    batch_size: int = 256,
    workers: int = 4,
    save_every: int = 500,
    **arguments: Any,
) -> CurriculumTrainer:
    """Train, and return the trainer; `arguments` are `TrainingArguments`."""
    set_seed(0)
    train, val = upchirp.open_data(data, size)  # upchirp
    labels = {"id2label": dict(enumerate(train.classes)), "num_labels": len(train.classes)}
    made_for_a_size = get_pretrained_cfg(model).fixed_input_size  # as vision transformers are; ResNets take any
    sized = {"model_args": {"img_size": size}} if made_for_a_size else {}
    config = TimmWrapperConfig(architecture=model, **sized, **labels)
    net = TimmWrapperForImageClassification(config)
    curriculum = upchirp.efficienttrain_plus_plus(size, multiple=upchirp.size_multiple(as_classifier(net)))  # upchirp
    plan = upchirp.plan(  # upchirp
        curriculum, epochs=epochs, dataset_size=len(train), batch_size=batch_size, learning_rate=1e-3
    )
    args = TrainingArguments(
        output,
        weight_decay=0.05,
        dataloader_num_workers=workers,
        save_steps=save_every,
        eval_strategy="steps",
        eval_steps=save_every,
        **arguments,
    )
    trainer = CurriculumTrainer(net, args, plan=plan, train_dataset=train, eval_dataset=val)  # upchirp
    trainer.train(resume_from_checkpoint=get_last_checkpoint(output))
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", default="hf_trainer")
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=float, default=90.0)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=4)
    main(**vars(parser.parse_args()))
