"""`burnish dpo` and its like: settings in, a trained model out, and what the user sees on the way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.cli.arguments import Parsed, parse_arguments
from burnish.cli.help import print_help
from burnish.cli.methods import KINDS, config_type_of, trainer_type_of
from burnish.cli.samples import format_samples
from burnish.console import is_main_process, notice, printable
from burnish.device.processes import follow_launcher
from burnish.errors import EXIT_DONE, ConfigError
from burnish.methods.ahead import prepare_ahead

if TYPE_CHECKING:
    from burnish.methods.trainer import Trainer


def run(name: str, argv: list[str]) -> int:
    """Run the command with the words after its name; the exit code."""
    follow_launcher()
    config_type = config_type_of(name)
    if "-h" in argv or "--help" in argv or "--help-all" in argv or "--help_all" in argv:
        print_help(name, config_type, everything="-h" not in argv and "--help" not in argv)
        return EXIT_DONE
    parsed: Parsed[Any] = parse_arguments(argv, config_type)
    is_demo = name == "dpo" and not parsed.given & {"model_name_or_path", "dataset_name"}
    if is_demo:
        parsed = parse_arguments([*_demo_arguments(), *argv], config_type)
    os.environ.update(parsed.environment)
    for note in parsed.notes:
        notice(note)
    if is_demo:
        notice("no model and no data set given: training the embedded model on the embedded preferences")
    return _train(name, parsed.config, is_demo=is_demo)


def _demo_arguments() -> list[str]:
    from burnish.demo import demo_paths

    paths = demo_paths()
    return [
        *("--config", str(paths.settings)),
        *("--model_name_or_path", str(paths.model)),
        *("--dataset_name", str(paths.data)),
    ]


def _train(name: str, config: Any, *, is_demo: bool) -> int:
    if not config.dry_run and (config.devices is not None or config.device_memory is not None):
        raise ConfigError("--devices and --device_memory are what a --dry_run plans for: add it, or leave them out.")
    with prepare_ahead(config, (), KINDS[name], tells=False) as ahead:
        trainer: Trainer = trainer_type_of(name)(args=config)
        trainer.inputs.ahead = ahead
        return _train_with(trainer, config, is_demo=is_demo)


def _train_with(trainer: Trainer, config: Any, *, is_demo: bool) -> int:
    try:
        if config.dry_run:
            lines = trainer.plan().lines()
            if is_main_process():
                print(printable("\n".join(lines)))
            return EXIT_DONE
        notice("\n".join(trainer.plan().lines(brief=True)))
        counts = is_demo and is_main_process() and config.parallel == "ddp"  # slices answer on all ranks together
        show = _ManyReplies(trainer) if counts else None
        fresh = config.resume_from_checkpoint is None
        before = trainer.sample("before") if fresh else []
        folder = trainer.train_and_export()
        after = trainer.sample("after")
        if show is not None:
            print(show.compare())
        elif after:
            print(format_samples(before, after))
        notice(f"model: {_relative(folder)}")
        trainer.session.ranks.wait()
        return EXIT_DONE
    finally:
        trainer.close()


class _ManyReplies:
    """The demo's measure: manners and correctness of all held-out replies, before and after."""

    def __init__(self, trainer: Trainer) -> None:
        from burnish.demo.showcase import load_held_out

        self.trainer = trainer
        self.rows = load_held_out()
        self.before = self._measure()

    def _measure(self) -> Any:
        from burnish.demo.showcase import measure_manners

        return measure_manners(self.trainer.session.model, self.trainer.processing_class, self.rows)

    def compare(self) -> str:
        from burnish.demo.showcase import format_comparison

        return format_comparison(self.before, self._measure(), self.rows)


def _relative(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
