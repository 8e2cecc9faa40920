"""transformers' TrainerCallback objects on our loop, for the events that it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from burnish.engine.run_state import RunControl, RunState
from burnish.errors import ConfigError

EVENTS = (
    "on_init_end",
    "on_train_begin",
    "on_epoch_begin",
    "on_step_begin",
    "on_pre_optimizer_step",
    "on_optimizer_step",
    "on_step_end",
    "on_log",
    "on_evaluate",
    "on_save",
    "on_epoch_end",
    "on_train_end",
)


class Callbacks:
    """Calls users' callbacks in order, with the arguments that transformers' Trainer gives them."""

    def __init__(self, callbacks: Sequence[Any], *, args: Any, objects: dict[str, Any]) -> None:
        self.callbacks = [callback() if isinstance(callback, type) else callback for callback in callbacks]
        self.args = args
        self.objects = objects
        self.state: Any = RunState()
        self.control: Any = RunControl()
        if self.callbacks:
            self._speak_transformers()

    def _speak_transformers(self) -> None:
        """Take transformers' own state and control, which callbacks may ask for more than the loop does."""
        from transformers.trainer_callback import TrainerCallback, TrainerControl

        for callback in self.callbacks:
            if not isinstance(callback, TrainerCallback):
                raise ConfigError(f"callbacks: {callback!r} is no transformers.TrainerCallback.")
        self.state, self.control = self.trainer_state(), TrainerControl()

    def trainer_state(self) -> Any:
        """The state as transformers.TrainerState, which the loop keeps up to date from here on."""
        if isinstance(self.state, RunState):
            self.state = self.state.as_trainer_state()
        return self.state

    def call(self, event: str, **details: Any) -> None:
        """Let every callback see an event; a control object that it returns replaces the current one."""
        for callback in self.callbacks:
            result = getattr(callback, event)(self.args, self.state, self.control, **self.objects, **details)
            self.control = result or self.control

    def begin_step(self) -> None:
        """Forget what was asked of the last step, then tell that a step begins."""
        self.control.should_log = self.control.should_evaluate = self.control.should_save = False
        self.call("on_step_begin")

    def states(self) -> list[dict[str, Any] | None]:
        """What callbacks with a state (ExportableState) want kept in a checkpoint, in order."""
        return [callback.state() if hasattr(callback, "state") else None for callback in self.callbacks]

    def restore(self, states: Sequence[dict[str, Any] | None]) -> None:
        """Give callbacks their state back, where the same callbacks are there."""
        for callback, state in zip(self.callbacks, states, strict=False):
            for name, value in (state or {}).get("attributes", {}).items():
                setattr(callback, name, value)
