"""One turn of burnish: train or prepare as a TRL script does after changing its import; run by compare.py.

Its caches are empty at the start, so that no turn profits from an earlier one.

    python burnish_turn.py JOB.json RESULT.json
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PACKAGES = ("burnish", "transformers", "torch", "tokenizers", "datasets")


def main() -> None:
    """Do the job and write the result."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BURNISH_CACHE"] = str(Path(folder) / "cache")
        result = {"train": train, "prepare": prepare, "rate": rate}[job["kind"]](job, folder)
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


def settings(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return the settings of a training turn, the same as on TRL's side."""
    return {
        "model_name_or_path": job["model"],
        "dataset_name": job["data"],
        "eval_dataset_name": job["eval_data"],
        "output_dir": str(Path(folder) / "run"),
        "per_device_train_batch_size": job["micro_batch"],
        "gradient_accumulation_steps": job["pairs"] // job["micro_batch"],
        "per_device_eval_batch_size": job["micro_batch"],
        "max_steps": job["steps"],
        "learning_rate": job["learning_rate"],
        "train_sampling_strategy": "sequential",
        "num_threads": job["threads"],
        "device": "cpu",
        "precision": job["precision"],
        "eval_strategy": "steps" if job["eval_data"] else "no",
        "eval_steps": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def train(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Run the steps with an evaluation after each."""
    from burnish import DPOConfig, DPOTrainer
    from clock import Clock

    clock = Clock(job["spawned"])
    trainer = DPOTrainer(args=DPOConfig(**settings(job, folder)), callbacks=[clock])
    try:
        trainer.train()
    finally:
        trainer.close()
    return clock.result(trainer.state.log_history, PACKAGES)


def prepare(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Time the preparation of a file of rows, its reading and all its checks included."""
    from transformers import AutoTokenizer

    from burnish.data.prepare import prepare_groups
    from burnish.data.settings import DataSettings
    from burnish.data.sources import load_rows
    from clock import footprint

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    chosen = DataSettings(dataset_name=job["data"], max_length=None, tokenizer_backend=job["tokenizer_backend"])
    began = time.perf_counter()
    groups = prepare_groups(load_rows(chosen), tokenizer, chosen, cache_dir=Path(folder) / "cache").groups
    seconds = time.perf_counter() - began
    digest = hashlib.sha256()
    for group in groups:
        ids = [group.prompt_ids.tolist(), *(completion.tolist() for completion in group.completion_ids)]
        digest.update(json.dumps(ids).encode())
    return {"pairs": len(groups), "seconds": seconds, "ids": digest.hexdigest(), **footprint(PACKAGES)}


def rate(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Measure the machine's matrix-product rate at the model's shapes, and count the tokens of the step's pairs."""
    from transformers import AutoTokenizer

    from burnish.data.prepare import prepare_groups
    from burnish.data.settings import DataSettings
    from burnish.data.sources import load_rows
    from clock import footprint
    from matrix_products import ModelShape, measure_rate

    measured = measure_rate(ModelShape.read(Path(job["model"])), precision=job["precision"], threads=job["threads"])
    chosen = DataSettings(dataset_name=job["data"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    groups = prepare_groups(load_rows(chosen), tokenizer, chosen, cache_dir=Path(folder) / "cache").groups
    lengths = [[len(group.prompt_ids), [len(ids) for ids in group.completion_ids]] for group in groups]
    return {"operations_per_second": measured, "lengths": lengths, **footprint(PACKAGES)}


if __name__ == "__main__":
    main()
