"""Faults that a run meets, put in place inside its own process before it starts. Each is real from the run's view."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from burnish.cli import main
from burnish.engine import shards, tensor_files
from burnish.engine.evaluation import Evaluation
from burnish.engine.loop import TrainingLoop
from burnish.engine.passes import Passes
from burnish.engine.shard_files import SHARD
from burnish.methods import checkpointing
from burnish.methods.checkpointing import RunCheckpoints
from burnish.methods.preference import PreferenceMethod
from burnish.methods.unpaired import UnpairedMethod
from burnish.models import export


def _before(owner: Any, name: str, act: Callable[..., None]) -> None:
    """Let `act` see every call of a method first."""
    original = getattr(owner, name)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        act(self)
        return original(self, *args, **kwargs)

    setattr(owner, name, call)


def _after(owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Let `change` alter what a method returns: (self, result) -> result."""
    original = getattr(owner, name)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return change(self, original(self, *args, **kwargs))

    setattr(owner, name, call)


def _watch_steps() -> dict[str, int]:
    """Where the run is: `step` is the one (from 1) that it is in or has just done."""
    here = {"step": 0}
    _before(TrainingLoop, "_one_step", lambda loop: here.update(step=loop.counters.step + 1))
    return here


def _in_step(step: int, strike: Callable[[], None]) -> None:
    """Do something once in the middle of a step (from 1), before a micro-batch's forward."""
    here = {"step": 0, "done": False}

    def act(_: Any) -> None:
        if here["step"] == step and not here["done"]:
            here["done"] = True
            strike()

    _before(TrainingLoop, "_one_step", lambda loop: here.update(step=loop.counters.step + 1))
    _before(Passes, "score", act)


def signal_in_step(number: str, step: int, times: int = 1, seconds_apart: float = 0.0, delay: float = 0.0) -> None:
    """Send a signal to this process in the middle of a step (from 1), or, beside it, so many seconds later."""
    if delay:
        _in_step(step, lambda: threading.Timer(delay, _send, (number, times, seconds_apart)).start())
    else:
        _in_step(step, lambda: _send(number, times, seconds_apart))


def signal_in_save(number: str, step: int, times: int = 1) -> None:
    """Send a signal while the checkpoint of a step is being written, after its first file."""
    here = {"step": -1}
    _before(RunCheckpoints, "save", lambda self: here.update(step=self.loop.counters.step))
    original = tensor_files.write_file

    def write_file(path: Any, chunks: Any) -> Any:
        entry = original(path, chunks)
        if here["step"] == step and path.name.endswith(".safetensors"):
            here["step"] = -1
            _send(number, times, 0.0)
        return entry

    tensor_files.write_file = write_file


def signal_in_evaluation(number: str, evaluation: int, times: int = 1) -> None:
    """Send a signal in the given evaluation (from 1), before its second micro-batch."""
    here = {"evaluation": 0, "batch": 0}

    def begin(_: Any) -> None:
        here["evaluation"] += 1
        here["batch"] = 0

    def strike(passes: Any) -> None:
        if not passes.scorer.training and here["evaluation"] == evaluation:
            here["batch"] += 1
            if here["batch"] == 2:
                _send(number, times, 0.0)

    _before(Evaluation, "run", begin)
    _before(Passes, "score", strike)


def hang_in_step(step: int) -> None:
    """Do nothing for ever in the middle of a step (from 1)."""
    _in_step(step, lambda: time.sleep(3600))


def kill_after(seconds: float) -> None:
    """SIGKILL at a moment of the clock, counted from the first step."""

    def arm(_: Any) -> None:
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()

    _before(TrainingLoop, "run", arm)


def kill_at_step(step: int) -> None:
    """SIGKILL in the middle of a step (from 1), before a micro-batch's forward."""
    _in_step(step, lambda: os.kill(os.getpid(), signal.SIGKILL))


def kill_in_save(seed: int) -> None:
    """SIGKILL inside one of the run's next saves: before a random one of its opens, writes, fsyncs and renames."""
    left = {"operations": random.Random(seed).randint(1, 90), "saving": False}

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            left["operations"] -= left["saving"]
            if left["operations"] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
            return function(*args, **kwargs)

        return call

    for name in ("write", "fsync", "replace", "open"):
        setattr(os, name, watched(getattr(os, name)))
    original = checkpointing.save_checkpoint

    def save_checkpoint(*args: Any, **kwargs: Any) -> Any:
        left["saving"] = True
        try:
            return original(*args, **kwargs)
        finally:
            left["saving"] = False

    checkpointing.save_checkpoint = save_checkpoint


def kill_as_save_begins(step: int) -> None:
    """SIGKILL as the checkpoint of a step is about to be put together, where the other ranks wait for this one."""

    def strike(checkpoints: RunCheckpoints) -> None:
        if checkpoints.loop.counters.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    _before(RunCheckpoints, "save", strike)


def kill_after_shard(step: int) -> None:
    """SIGKILL when this rank has written its first slices of a step's checkpoint, and told nobody."""
    write_part = shards.write_part

    def write_and_die(folder: Any, name: str, tensors: Any) -> Any:
        entries = write_part(folder, name, tensors)
        if folder.name.startswith(f"step-{step}") and SHARD.fullmatch(name):
            os.kill(os.getpid(), signal.SIGKILL)
        return entries

    shards.write_part = write_and_die


def speak_soon() -> None:
    """Say at once what others may have to say first."""
    _replace(main, "_SECONDS_FOR_THE_FIRST", 0.2)
    _replace(main, "_SECONDS_FOR_THE_CAUSE", 0.2)


def kill_in_export() -> None:
    """SIGKILL when the final model's folder is written and not yet in its place."""
    _replace(export, "_publish", lambda *_: os.kill(os.getpid(), signal.SIGKILL))


def full_disk_in_export() -> None:
    """ENOSPC when the final model is put into its place."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    _replace(export, "_publish", refuse)


def _replace(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


def _send(number: str, times: int, seconds_apart: float) -> None:
    for _ in range(times):
        os.kill(os.getpid(), getattr(signal, number))
        time.sleep(seconds_apart or 0.05)


def slow_steps(seconds: float) -> None:
    """Let every step take longer."""
    _before(TrainingLoop, "_one_step", lambda _: time.sleep(seconds))


def limit_address_space(step: int, more_bytes: int) -> None:
    """Let this process map only so many bytes more, from the middle of a step (from 1) on.

    Freed blocks go back at once: the limit counts addresses, and those of a heap stay its own when its memory is free.
    """
    import ctypes
    import resource

    mmap_threshold = -3  # a name of glibc's mallopt(3): blocks from this size on are unmapped when they are freed

    def strike() -> None:
        ctypes.CDLL(None).mallopt(mmap_threshold, 1 << 16)
        with open("/proc/self/statm") as file:  # noqa: PTH123
            pages = int(file.read().split()[0])
        limit = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    _in_step(step, strike)


def out_of_memory(
    above: int, where: str, step: int = 1, times: int = 10**9, rank: int = 0, training: bool = True
) -> None:
    """Refuse micro-batches of more than `above` tokens from a step (from 1) on, as a full device does.

    In the last layer's forward, or in the first layer's backward, when later layers have their gradients already.
    """
    left = {"times": times}

    def arm(loop: Any) -> None:
        def refuse(hidden: Any) -> None:
            is_due = loop.counters.step + 1 >= step and loop.passes.scorer.training is training
            if is_due and left["times"] and hidden.shape[0] * hidden.shape[1] > above:
                left["times"] -= 1
                raise RuntimeError(
                    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 17179869184 bytes."
                )

        if loop.passes.ranks.rank != rank:
            return
        layers = [one for one in loop.passes.scorer.modules() if type(one).__name__.endswith("DecoderLayer")]
        if where == "forward":
            layers[-1].register_forward_pre_hook(lambda _, inputs: refuse(inputs[0]))
        else:
            layers[0].register_full_backward_pre_hook(lambda _, gradients: refuse(gradients[0]))

    _before(TrainingLoop, "run", arm)


def scale_loss(factor: str, first: int, last: int) -> None:
    """Multiply the loss by a factor (nan and inf among them) in the steps from `first` to `last`, counted from 1."""
    here = _watch_steps()

    def change(_: Any, outcome: Any) -> Any:
        due = first <= here["step"] <= last and torch.is_grad_enabled()
        return replace(outcome, loss=outcome.loss * float(factor)) if due else outcome

    for method in (PreferenceMethod, UnpairedMethod):
        _after(method, "loss", change)


def poison_gradient(value: str, first: int, last: int) -> None:
    """Put a number that is not finite into a weight's gradient; the loss stays as it is."""
    here = _watch_steps()

    def arm(loop: Any) -> None:
        weight = next(iter(loop.passes.scorer.parameters()))
        weight.register_hook(lambda g: g + float(value) if first <= here["step"] <= last else g)

    _before(TrainingLoop, "run", arm)


def poison_weights(step: int) -> None:
    """Make the embeddings NaN after a step (from 1) has been taken, as a broken update would."""

    def act(loop: Any) -> None:
        if loop.counters.step == step:
            with torch.no_grad():
                next(iter(loop.passes.scorer.parameters())).fill_(float("nan"))

    _before(TrainingLoop, "_agree_on_control", act)


def raise_learning_rate(step: int, factor: float) -> None:
    """Take one step (from 1) with a learning rate that is too high by a factor."""

    def change(loop: Any) -> None:
        if loop.counters.step + 1 in (step, step + 1):
            times = factor if loop.counters.step + 1 == step else 1 / factor
            for group in loop.optimizer.param_groups:
                group["lr"] *= times

    _before(TrainingLoop, "_one_step", change)


def _in_save(step: int, strike: Callable[[Any], None], *, after: bool = False, name: str = ".safetensors") -> None:
    """Do something once in the save of a step, before or after a file whose name ends so is written."""
    here = {"step": -1}
    _before(RunCheckpoints, "save", lambda self: here.update(step=self.loop.counters.step))
    original = tensor_files.write_file

    def write_file(path: Any, chunks: Any) -> Any:
        due = here["step"] == step and path.name.endswith(name)
        if due and not after:
            here["step"] = -1
            strike(path)
        entry = original(path, chunks)
        if due and after:
            here["step"] = -1
            strike(path)
        return entry

    tensor_files.write_file = write_file


def _before_save(step: int, act: Callable[[], None]) -> None:
    """Do something before the save of a step begins, when the save before it has ended."""
    _before(RunCheckpoints, "save", lambda self: act() if self.loop.counters.step == step else None)


def limit_file_size(step: int, limit_bytes: int, until: int = 10**9) -> None:
    """From the save of one step to that of another, the kernel refuses files beyond a size (RLIMIT_FSIZE)."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    _in_save(step, lambda _: limit(limit_bytes))
    _before_save(until, lambda: limit(resource.RLIM_INFINITY))


def fill_disk_in_save(step: int, junk: str, until: int = 10**9) -> None:
    """Somebody else fills the disk (a small tmpfs) while a checkpoint is being written, and clears it for another.

    At first every byte; as soon as the save has failed and its files are gone, what they leave free as well.
    """

    def fill(_: Any = None) -> None:
        with suppress(OSError), Path(junk).open("ab", buffering=0) as file:
            for size in (4096, 1):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def fill_again(loop: TrainingLoop) -> None:
        if step < loop.counters.step < until:
            fill()

    _in_save(step, fill)
    if until < 10**9:
        _before(TrainingLoop, "_one_step", fill_again)
        _before_save(until, Path(junk).unlink)


def failing_fsync(step: int) -> None:
    """EIO at the next fsync in the save of a step, as a dying disk gives it; once."""
    real = os.fsync

    def fail(descriptor: int) -> None:
        os.fsync = real
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    _in_save(step, lambda _: setattr(os, "fsync", fail))


def corrupt_in_save(step: int) -> None:
    """Flip a byte of a checkpoint's weights after they were written and before they are read back."""

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x40
        path.write_bytes(data)

    _in_save(step, flip, after=True, name="model.safetensors")


def unlike_reference(nats: float) -> None:
    """Let the policy's forward differ from the reference's, as one that is not reproducible does."""

    def change(self: Any, scored: Any) -> Any:
        return replace(scored, scores=replace(scored.scores, logps=scored.scores.logps + nats))

    _after(Passes, "score", change)
