"""Collects what experiments came to, for `docs/evidence.md`: from the folders of `upchirp compare` to one JSON file.

    python benchmarks/evidence.py runs/table-08 runs/table-09 > benchmarks/results/evidence.json

An experiment is named after its folder. Names of data are kept without the folder that they lie in.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROUNDED = 3
OF_A_RUN = ("name", "budget", "equivalent_epochs", "relative_compute", "accuracy", "train_seconds", "images_per_second")
OF_A_DIFFERENCE = ("points", "margin", "seen")
OF_ALL = ("model", "model_kwargs", "dataset_size", "final_size", "batch_size", "recipe", "epochs", "seeds", "versions")


def collected(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What is worth keeping of a comparison's `summary.json`."""
    runs = [
        {
            **{name: run[name] for name in OF_A_RUN},
            "mean_accuracy": run["mean"]["accuracy"],
            "difference": run["difference"] and {name: run["difference"][name] for name in OF_A_DIFFERENCE},
        }
        for run in summary["runs"]
    ]
    data = Path(summary["data"]).name
    return {
        **{name: summary[name] for name in OF_ALL},
        "data": data,
        "hardware": summary["hardware"],
        "command": summary["command"].replace(summary["data"], data),
        "times_compare": not summary["disturbed"],
        "runs": rounded(runs),
    }


def rounded(value: Any) -> Any:
    """Numbers with as many digits as mean something."""
    if isinstance(value, float):
        return round(value, ROUNDED)
    if isinstance(value, Mapping):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def main(folders: Sequence[str]) -> None:
    found = {Path(folder).name: json.loads((Path(folder) / "summary.json").read_text()) for folder in folders}
    json.dump({name: collected(summary) for name, summary in found.items()}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main(sys.argv[1:])
