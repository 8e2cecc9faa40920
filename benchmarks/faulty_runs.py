"""The two sides that benchmarks/trainer_faults.py gives the same faults to, each run in a forked child.

The parent has everything imported and runs no tensor operation; a fault inside a run is put in place by the child.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch_file
from safetensors.torch import save_file as save_torch_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model

from burnish import SFTTrainer
from burnish.cli.main import main as burnish_main
from burnish.demo import demo_paths
from burnish.engine.loop import TrainingLoop

IMPORTED = (AutoTokenizer, SFTTrainer)
NUM_ROWS, ROWS_A_STEP, STEPS, SAVE_STEPS = 48, 4, 12, 3
POISON = "poison"
"""A word of one row; a run with the fault `poisoned row` gets NaN wherever this row takes part."""
POISONED_ROW = 20
FILE_LIMIT_BYTES = 12 << 20
"""Between the size of the weights, which fit, and that of the optimizer's state, which does not."""

InRun = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended."""

    code: int
    """Exit code, or minus the signal that killed it."""
    text: str
    """What it printed."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What both sides train: a model folder and rows of one text each."""

    model: Path
    rows: Path


@dataclass(frozen=True, slots=True)
class Side:
    """How to run one side, and where it keeps things."""

    name: str
    train: Callable[[Inputs, Path, bool], int]
    """Begin a run in a folder, or go on with it; returns the exit code."""
    checkpoint: str
    """Path of a step's checkpoint in the folder of a run."""
    optimizer: str
    rng: str
    in_step: Callable[[int, InRun], None]
    """Do something at the start of a step (from 1)."""

    def folder(self, run: Path, step: int) -> Path:
        """The checkpoint of a step."""
        return run / self.checkpoint.format(step)

    def weights(self, run: Path) -> dict[str, Any] | None:
        """Weights after the last step; None where the run never got there."""
        path = self.folder(run, STEPS) / "model.safetensors"
        return dict(load_file(path)) if path.exists() else None


def inputs_in(folder: Path) -> Inputs:
    """Where `make_inputs` puts them."""
    return Inputs(folder / "model", folder / "rows.jsonl")


def make_inputs(folder: Path) -> int:
    """Write the embedded model in float32 with dropout, and its first rows as texts; to be called in a child."""
    source, model, rows = demo_paths(), inputs_in(folder).model, inputs_in(folder).rows
    shutil.copytree(source.model, model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config |= {"attention_dropout": 0.1, "dtype": "float32"}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {name: tensor.float() for name, tensor in load_torch_file(model / "model.safetensors").items()}
    save_torch_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    lines = (source.data / "train.jsonl").read_text(encoding="utf-8").splitlines()[:NUM_ROWS]
    texts = [f"{row['prompt'][0]['content']} {row['chosen'][0]['content']}" for row in map(json.loads, lines)]
    texts[POISONED_ROW] += f" {POISON}"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return 0


def in_child(act: Callable[[], int], log: Path) -> Ended:
    """Run something in a forked child with a log of its own, and wait for it."""
    child = os.fork()
    if not child:
        code = 1
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            torch.set_num_threads(1)
            code = act()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(code, log.read_text(encoding="utf-8", errors="replace"))


def train_with_burnish(inputs: Inputs, run: Path, resume: bool) -> int:
    """`burnish sft` on the rows."""
    words = [
        *("sft", "--model_name_or_path", str(inputs.model), "--dataset_name", str(inputs.rows)),
        *("--output_dir", str(run), "--max_steps", str(STEPS), "--global_batch_size", str(ROWS_A_STEP)),
        *("--save_steps", str(SAVE_STEPS), "--logging_steps", "1", "--learning_rate", "1e-3", "--num_samples", "0"),
        *("--data_cache_dir", str(run.parent / "cache"), "--num_threads", "1", "--max_length", "256"),
        *(("--resume_from_checkpoint", "auto") if resume else ()),
    ]
    return burnish_main(words)


def train_with_trainer(inputs: Inputs, run: Path, resume: bool) -> int:
    """Transformers' Trainer on the rows, with its defaults but for what a CPU and a log need."""
    set_seed(42)
    tokenizer: Any = AutoTokenizer.from_pretrained(inputs.model)
    model: Any = AutoModelForCausalLM.from_pretrained(inputs.model)
    rows = [json.loads(line)["text"] for line in inputs.rows.read_text(encoding="utf-8").splitlines()]
    data: Any = [{"input_ids": tokenizer(text)["input_ids"]} for text in rows]
    args = TrainingArguments(
        output_dir=str(run), max_steps=STEPS, per_device_train_batch_size=ROWS_A_STEP, save_steps=SAVE_STEPS,
        logging_steps=1, learning_rate=1e-3, use_cpu=True, disable_tqdm=True, report_to=[], lr_scheduler_type="linear",
    )  # fmt: skip
    trainer: Any = Trainer(
        model=model, args=args, train_dataset=data, data_collator=lambda rows: _padded(rows, tokenizer.pad_token_id)
    )
    trainer.add_callback(_Announce())
    for step, act in _IN_STEP:
        trainer.add_callback(_Strike(step, act))
    trainer.train(resume_from_checkpoint=True if resume else None)
    return 0


class _Announce(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say where the run goes on, as burnish does by itself."""
        if state.global_step:
            print(f"resumed after step {state.global_step} of {STEPS}", flush=True)


class _Strike(TrainerCallback):
    def __init__(self, step: int, act: InRun) -> None:
        self.step, self.act = step, act

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the fault happen in its step."""
        if state.global_step + 1 == self.step:
            self.act()


_IN_STEP: list[tuple[int, InRun]] = []


def _padded(rows: list[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """Token ids, mask and labels, (rows, tokens)."""
    longest = max(len(row["input_ids"]) for row in rows)
    fill = lambda with_: [row["input_ids"] + [with_] * (longest - len(row["input_ids"])) for row in rows]  # noqa: E731
    ids, labels = torch.tensor(fill(pad)), torch.tensor(fill(-100))
    return {"input_ids": ids, "attention_mask": (labels != -100).long(), "labels": labels}


def _strike_burnish(step: int, act: InRun) -> None:
    original: Any = TrainingLoop._one_step

    def one_step(loop: Any, *args: Any, **kwargs: Any) -> Any:
        if loop.counters.step + 1 == step:
            act()
        return original(loop, *args, **kwargs)

    loop_type: Any = TrainingLoop
    loop_type._one_step = one_step


SIDES = (
    Side(
        "Trainer", train_with_trainer, "checkpoint-{}", "optimizer.pt", "rng_state.pth",
        lambda step, act: _IN_STEP.append((step, act)),
    ),
    Side(
        "burnish", train_with_burnish, "checkpoints/step-{}", "optimizer.safetensors", "rng-0.safetensors",
        _strike_burnish,
    ),
)  # fmt: skip


def kill() -> None:
    """End this process as the kernel or a scheduler does."""
    os.kill(os.getpid(), signal.SIGKILL)


def terminate() -> None:
    """Ask this process to end."""
    os.kill(os.getpid(), signal.SIGTERM)


def limit_files(deadly: bool) -> None:
    """Let no file of this process grow over the limit: a disk that is full, or (deadly) a kill in mid-write."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT_BYTES, FILE_LIMIT_BYTES))


def poison_row(inputs: Inputs) -> None:
    """Let the model's output be NaN whenever the marked row is trained."""
    tokenizer: Any = AutoTokenizer.from_pretrained(inputs.model)
    text = json.loads(inputs.rows.read_text(encoding="utf-8").splitlines()[POISONED_ROW])["text"]
    last = tokenizer(text)["input_ids"][-3:]
    original: Any = Qwen2Model.forward

    def forward(model: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(model, *args, **kwargs)
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is not None and torch.is_grad_enabled() and _holds(ids.reshape(-1).tolist(), last):
            output.last_hidden_state = output.last_hidden_state * float("nan")
        return output

    model_type: Any = Qwen2Model
    model_type.forward = forward


def _holds(ids: list[int], part: list[int]) -> bool:
    return any(ids[place : place + len(part)] == part for place in range(len(ids)))


def put_nan_into(model: Path) -> None:
    """Make one number of a model's weights NaN."""
    path = model / "model.safetensors"
    weights = {name: tensor.copy() for name, tensor in load_file(path).items()}
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
