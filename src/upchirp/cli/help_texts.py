"""The words of the help: by command its common flags and two examples, and which flags belong together."""

from collections.abc import Mapping

_TRAINING = {
    "data": "folder of images, CLASS/* or train/ and val/, or a zip",
    "model": "any timm model by name, such as resnet50",
    "output": "run folder; by default a new one under runs/",
    "epochs": "budget in passes over the data at the final size",
    "time-budget": "budget in training time instead, such as 45m or 1h30m",
    "final-size": "input side at the end and at test time, pixels",
    "batch-size": "images in one optimizer step",
    "lr": "highest learning rate",
    "recipe": "name for all other settings; --help-all lists them",
    "resume": "auto goes on with the run in --output",
}

COMMON: Mapping[str, Mapping[str, str]] = {
    "upchirp train": _TRAINING,
    "upchirp pretrain": {
        **{name: what for name, what in _TRAINING.items() if name not in ("time-budget", "recipe", "lr")},
        "data": "any folder of images, or a zip; labels are ignored",
        "model": "a vision transformer, such as vit_base_patch16_224",
        "target": "what is predicted of what is hidden: hog or pixels",
        "mask-ratio": "share of the patches that is hidden",
        "dry-run": "print the stages and what they cost, and stop",
    },
    "upchirp finetune": {
        **{name: what for name, what in _TRAINING.items() if name not in ("time-budget", "recipe")},
        "weights": "start from this file, or by name: timm/NAME.TAG",
        "pretrained": "start from timm's weights of the model",
    },
    "upchirp plan": {
        **{name: _TRAINING[name] for name in ("data", "model", "epochs", "time-budget", "final-size", "recipe")},
        "curriculum": "preset or YAML file; --help-all lists them",
        "dataset-size": "training images, where there is no --data",
        "measure": "time and memory on this machine, by a few steps",
        "json": "print JSON",
    },
    "upchirp eval": {
        "run": "run folder: gives all that is not given",
        "weights": "weights file, or timm/NAME.TAG",
        "model": "any timm model by name; by default what the weights say",
        "data": "images; by default those that the run validated on",
        "final-size": "input side, pixels; by default the run's",
        "sizes": "several input sides instead",
        "batch-size": "images in one forward pass",
        "workers": "loader processes; by default one for each core",
        "device": "where to evaluate",
        "json": "print JSON",
    },
    "upchirp predict": {
        "run": "run folder: gives all that is not given",
        "weights": "weights file, or timm/NAME.TAG",
        "top": "classes for each image",
        "tta": "average with the mirror image",
        "csv": "print CSV",
        "json": "print JSON",
        "batch-size": "images in one forward pass",
        "device": "where to compute",
    },
    "upchirp similarity": {
        "output": "folder to write; by default a new one under runs/",
        "data": "images; by default what the first run validated on",
        "images": "how many of them",
        "which": "raw weights of checkpoints, or their averages",
        "batch-size": "images in one forward pass",
        "workers": "loader processes; by default one for each core",
        "device": "where to compute",
        "json": "print JSON",
    },
    "upchirp export": {
        "run": "run folder: gives all that is not given",
        "weights": "weights file, or timm/NAME.TAG",
        "model": "any timm model by name; by default what the weights say",
        "model-kwargs": "arguments for its constructor",
        "format": "for which library",
        "output": "file to write; for hf a folder",
        "final-size": "input side, pixels; by default that of the weights",
        "push": "upload the folder to the Hugging Face hub",
    },
    "upchirp probe": {
        "weights": "weights file, or timm/NAME.TAG",
        "data": "labelled images: anything that train takes",
        "run": "run folder: gives all that is not given",
        "model": "any timm model by name; by default what the weights say",
        "knn": "nearest neighbours only",
        "linear": "a linear classifier only",
        "most-images": "training images at most; by default all",
        "device": "where to compute",
        "json": "print JSON",
    },
    "upchirp pack": {
        "data": "what to pack: anything that train takes",
        "output": "folder to write",
        "sizes": "shorter sides of the smaller versions, pixels",
        "quality": "JPEG quality of the smaller versions",
        "max-size": "store larger originals re-encoded at this shorter side",
        "shard-size": "images in a shard",
        "workers": "processes; by default one for each core",
        "verify": "check a packed folder instead",
        "json": "print JSON",
    },
    "upchirp search": {name: what for name, what in _TRAINING.items() if name not in ("time-budget", "lr", "recipe")}
    | {
        "stages": "stages of the curriculum",
        "candidates": "bandwidths to choose from, pixels",
        "dry-run": "print what the search costs and stop",
    },
    "upchirp compare": {name: what for name, what in _TRAINING.items() if name not in ("time-budget", "lr", "recipe")}
    | {
        "curricula": "the baseline and the others; presets or YAML files",
        "budgets": "budgets of the others, as shares of the baseline's",
        "seeds": "one run for each",
    },
}
"""By command: the flags that people use, each with a few words."""

EXAMPLES: Mapping[str, tuple[str, str]] = {
    "upchirp train": (
        "upchirp train --data photos --model resnet50 --time-budget 2h",
        "upchirp train --data photos --model resnet50 --output runs/a --resume auto",
    ),
    "upchirp pretrain": (
        "upchirp pretrain --data photos --model vit_small_patch16_224",
        "upchirp pretrain --data photos --model vit_small_patch16_224 --dry-run",
    ),
    "upchirp finetune": (
        "upchirp finetune --data photos --model resnet50 --pretrained",
        "upchirp finetune --data photos --weights runs/a/model.safetensors",
    ),
    "upchirp plan": (
        "upchirp plan --data photos --model resnet50 --measure",
        "upchirp plan --model resnet50 --epochs 50 --dataset-size 90000",
    ),
    "upchirp eval": (
        "upchirp eval --run runs/a",
        "upchirp eval --weights model.safetensors --data photos --sizes 224 256",
    ),
    "upchirp predict": (
        "upchirp predict --run runs/a photos/new",
        "upchirp predict --weights model.safetensors --csv a.jpg b.jpg",
    ),
    "upchirp similarity": (
        "upchirp similarity runs/a runs/b",
        "upchirp similarity runs/a runs/a --images 2000 --output runs/itself",
    ),
    "upchirp export": (
        "upchirp export --run runs/a --format onnx --output a.onnx",
        "upchirp export --weights a.safetensors --format torchvision --output a.pth",
    ),
    "upchirp probe": (
        "upchirp probe --run runs/mae",
        "upchirp probe --weights model.safetensors --data photos --json",
    ),
    "upchirp pack": (
        "upchirp pack --data photos --output packed",
        "upchirp pack --output packed --verify",
    ),
    "upchirp search": (
        "upchirp search --data photos --model resnet50 --epochs 30 --dry-run",
        "upchirp search --data photos --model resnet50 --epochs 30 --output runs/s",
    ),
    "upchirp compare": (
        "upchirp compare --data photos --model resnet50 --epochs 30 --output runs/c",
        "upchirp compare experiments/figure-07.yaml --data photos --output runs/c",
    ),
}
"""By command: two that people would type."""

TAKES = {"upchirp predict": "IMAGES ... ", "upchirp similarity": "RUN RUN ", "upchirp compare": "[EXPERIMENT.yaml] "}
"""What a command takes beside its flags."""

GROUPS: Mapping[str, str] = {
    "data": "data more_data val_share train_split val_split label_column dataset_size num_classes",
    "model": "model model_kwargs in_chans weights pretrained keep_head head_init_scale fixres",
    "curriculum and budget": (
        "recipe regime curriculum final_size epochs time_budget baseline_epochs cost early_batch max_batch_size select "
        "select_prune select_until"
    ),
    "pre-training without labels": "method target mask_ratio least_visible decoder_depth decoder_width",
    "loss and teacher": "loss kd_model kd_temperature kd_alpha",
    "optimization": (
        "batch_size opt lr lr_base lr_base_size lr_base_scale lr_cap layer_decay layer_groups tune freeze head_only "
        "warmup warmup_passes warmup_lr min_lr sched sched_decay "
        "weight_decay opt_betas opt_eps opt_kwargs momentum clip_grad drop_path drop_path_scaling drop model_ema "
        "model_ema_decay model_ema_warmup"
    ),
    "augmentation": (
        "crop scale ratio hflip interpolation randaug_layers randaug_std randaug_prob reprob mixup cutmix mixup_prob "
        "mixup_switch_prob smoothing mean std pixel_type crop_pct"
    ),
    "loader": "workers loader_timeout mode low_frequency prepare replay replay_stages replay_mode "
    "replay_images replay_gib replay_final",
    "precision and speed": "amp amp_dtype micro_batch grad_checkpointing sync_bn parallel device deterministic "
    "channels_last compile seed",
    "run folder": (
        "output resume config print_config evaluations early_stop log_interval checkpoint_interval checkpoint_keep "
        "report track run"
    ),
}
