"""What the fault tests share: the tiny job, runs that can be killed, and what "equal" means."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from burnish.engine.commit import hash_file
from burnish.engine.manifest import MANIFEST_NAME, read_manifest, scan_checkpoints, write_manifest
from burnish.engine.run_lock import LOCK_NAME

SERVER = Path(__file__).with_name("run_server.py")
STEPS = 32
"""Steps of the job: 64 pairs, 4 a step, 2 epochs."""
PAIRS_A_STEP = 4
TIMES = ("_runtime", "_per_second", "_seconds")


def make_model(folder: Path, *, seed: int = 0, dropout: float = 0.1) -> Path:
    """A random Llama of 2 layers, width 32 and 300 tokens, with a byte tokenizer and a chat template."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"attention_dropout": dropout}
    sizes |= {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = LlamaConfig(
        vocab_size=300, num_hidden_layers=2, max_position_embeddings=256,
        bos_token_id=256, eos_token_id=257, pad_token_id=258, **sizes,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, "<s>", "</s>", "<pad>"])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return folder


def make_pairs(path: Path, *, count: int = 64, seed: int = 0) -> Path:
    """Conversational preference rows of uneven lengths."""
    generator = np.random.default_rng(seed)
    say = lambda low, high: "".join(generator.choice(list("abcdefgh "), int(generator.integers(low, high))))  # noqa: E731
    rows = [
        {
            "prompt": [{"role": "user", "content": say(3, 20)}],
            "chosen": [{"role": "assistant", "content": say(2, 16) + "!"}],
            "rejected": [{"role": "assistant", "content": say(2, 16) + "?"}],
        }
        for _ in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    code: int
    """Exit code, or minus the signal that killed it."""
    out: str
    err: str


@dataclass
class Running:
    """A run that can be sent signals and waited for."""

    server: Server
    pid: int
    out: Path
    err: Path

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 120) -> Ended:
        code = self.server.ask(do="wait", pid=self.pid, timeout=timeout)
        if code is None:
            self.send(signal.SIGKILL)
            self.server.ask(do="wait", pid=self.pid, timeout=10)
            raise TimeoutError(f"the run did not end within {timeout} s:\n{self.err.read_text()}")
        return Ended(code, self.out.read_text(), self.err.read_text())


class Server:
    """The forking process; see run_server.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answer()

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def start(self, words: list[Any], *faults: dict[str, Any], **environment: str) -> Running:
        """Begin a run; faults name functions of injections.py."""
        self.count += 1
        out, err = (self.folder / f"{self.count}.{kind}" for kind in ("out", "err"))
        request = {"words": [str(word) for word in words], "faults": list(faults), "environment": environment}
        pid = self.ask(do="start", stdout=str(out), stderr=str(err), **request)
        return Running(self, pid, out, err)

    def run(self, words: list[Any], *faults: dict[str, Any], expect: int = 0, **environment: str) -> Ended:
        """A run to its end; its exit code must be the expected one."""
        ended = self.start(words, *faults, **environment).wait()
        assert ended.code == expect, f"exit code {ended.code}, expected {expect}:\n{ended.out[-2000:]}\n{ended.err}"
        return ended

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@dataclass(frozen=True)
class Job:
    """The tiny job, and the folder of its runs."""

    server: Server
    model: Path
    data: Path
    held_out: Path
    folder: Path

    def words(self, run: Path | str, *more: Any) -> list[Any]:
        """The command line of the job; later words win."""
        return [
            "dpo",
            *("--model_name_or_path", self.model, "--dataset_name", self.data, "--output_dir", self.path(run)),
            *("--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 2, "--num_train_epochs", 2),
            *("--learning_rate", 1e-3, "--disable_dropout", "false", "--max_tokens_per_micro_batch", 120),
            *("--save_steps", 3, "--logging_steps", 2, "--num_samples", 0, "--reference_cache", "memory"),
            *("--data_cache_dir", self.folder / "cache", "--num_threads", 1),
            *more,
        ]

    def path(self, run: Path | str) -> Path:
        return self.folder / run

    def run(self, run: Path | str, *more: Any, expect: int = 0, faults: tuple[dict[str, Any], ...] = ()) -> Ended:
        """Run the job in a fresh process."""
        return self.server.run(self.words(run, *more), *faults, expect=expect)

    def resume(self, run: Path | str, *more: Any, expect: int = 0, faults: tuple[dict[str, Any], ...] = ()) -> Ended:
        return self.server.run(self.resume_words(run, *more), *faults, expect=expect)

    def resume_words(self, run: Path | str, *more: Any) -> list[Any]:
        """The command line that goes on with a run, or begins it."""
        return self.words(run, "--resume_from_checkpoint", "auto", *more)


def copy_run(run: Path, target: Path) -> Path:
    """A copy of a run directory, to damage it."""
    return Path(shutil.copytree(run, target, symlinks=True))


def checkpoint(run: Path, step: int) -> Path:
    """Folder of a step's checkpoint."""
    return run / "checkpoints" / f"step-{step}"


def records(run: Path) -> list[dict[str, Any]]:
    """The run's records without what a clock decides."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if not key.endswith(TIMES)} for record in lines]


def state(run: Path) -> dict[str, Any]:
    """The run's state.json."""
    return json.loads((run / "state.json").read_text())


def tensors(run: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    """Weights and optimizer state of a checkpoint."""
    return {
        f"{group} {name}": tensor
        for group in ("model", "optimizer")
        for name, tensor in load_file(checkpoint(run, step) / f"{group}.safetensors").items()
    }


def assert_equal_runs(run: Path, golden: Path, step: int = STEPS) -> None:
    """Weights, optimizer state and logged records are the same, bit for bit."""
    one, two = tensors(run, step), tensors(golden, step)
    assert sorted(one) == sorted(two)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert records(run) == records(golden)


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run by name, but for the lock, which comes and goes."""
    files = (path for path in run.rglob("*") if path.is_file() and path.name != LOCK_NAME)
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def good_steps(run: Path) -> list[int]:
    """Steps of a run's checkpoints, each of which must be whole to the last byte."""
    found = scan_checkpoints(run / "checkpoints", verify="full")
    assert [one.problem for one in found if one.problem] == []
    return [one.step for one in found]


def rewrite_manifest(folder: Path) -> None:
    """Let a checkpoint's manifest agree with its files as they are now."""
    manifest = read_manifest(folder)
    files = tuple(hash_file(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST_NAME)
    write_manifest(folder, replace(manifest, files=files))


def temporaries(run: Path) -> list[str]:
    """Names of what an unfinished write left."""
    return [path.name for path in run.rglob("*") if ".partial" in path.name or path.name.endswith(".tmp")]
