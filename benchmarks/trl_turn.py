"""One turn of TRL: train or prepare as its users do, and write what was measured; run by compare.py.

Imports nothing of burnish. Activation checkpointing is off, which is TRL's fastest way on a CPU, and rows are taken in
their order; everything else is TRL's default.

    python trl_turn.py JOB.json RESULT.json
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PACKAGES = ("trl", "transformers", "torch", "tokenizers", "datasets")


def main() -> None:
    """Do the job and write the result."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import torch

    torch.set_num_threads(job["threads"])
    with tempfile.TemporaryDirectory() as folder:
        result = {"train": train, "prepare": prepare}[job["kind"]](job, folder)
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


def train(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Run the steps with an evaluation after each."""
    from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportMissingImports]

    from clock import Clock

    config = DPOConfig(
        output_dir=folder,
        per_device_train_batch_size=job["micro_batch"],
        gradient_accumulation_steps=job["pairs"] // job["micro_batch"],
        per_device_eval_batch_size=job["micro_batch"],
        max_steps=job["steps"],
        learning_rate=job["learning_rate"],
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        bf16=job["precision"] == "bf16",
        use_cpu=True,
        eval_strategy="steps" if job["eval_data"] else "no",
        eval_steps=1,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    clock = Clock(job["spawned"])
    held_out = read_rows(job["eval_data"], folder) if job["eval_data"] else None
    trainer = DPOTrainer(
        model=job["model"],
        args=config,
        train_dataset=read_rows(job["data"], folder),
        eval_dataset=held_out,
        callbacks=[clock],
    )
    trainer.train()
    return clock.result(trainer.state.log_history, PACKAGES)


def prepare(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Time the preparation of rows that have been read already, in a trainer with a model too small to matter."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportMissingImports]

    from clock import footprint

    class TimedTrainer(DPOTrainer):
        seconds = 0.0

        def _prepare_dataset(self, *args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            prepared = super()._prepare_dataset(*args, **kwargs)
            self.seconds += time.perf_counter() - began
            return prepared

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    small: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
    }
    models = [LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **small)) for _ in range(2)]
    rows = read_rows(job["data"], folder)
    trainer = TimedTrainer(
        model=models[0],
        ref_model=models[1],
        args=DPOConfig(output_dir=folder, use_cpu=True, bf16=False, report_to="none", disable_tqdm=True),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    digest = hashlib.sha256()
    for row in trainer.train_dataset:
        digest.update(json.dumps([row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]]).encode())
    return {"pairs": len(rows), "seconds": trainer.seconds, "ids": digest.hexdigest(), **footprint(PACKAGES)}


def read_rows(path: str, folder: str) -> Any:
    """Return the rows of a JSON Lines file, read without any earlier run's cache."""
    from datasets import load_dataset

    return load_dataset("json", data_files=path, split="train", cache_dir=folder)


if __name__ == "__main__":
    main()
