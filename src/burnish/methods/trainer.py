"""The Python API: trainers with TRL's constructor and methods, over sessions and the loop."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import nn

from burnish.console import disable_bars
from burnish.data.prepare import GroupKind
from burnish.device.ranks import join_ranks
from burnish.device.sharding import is_sharded, whole_weights
from burnish.engine.loop import TrainingLoop
from burnish.engine.method import Method
from burnish.engine.plan import RunPlan
from burnish.engine.run_dir import RunDir
from burnish.engine.trackers import finish_trackers, start_trackers
from burnish.errors import EXIT_HANG, BurnishError, ConfigError, IntegrityError, Preempted
from burnish.methods.checkpointing import RunCheckpoints
from burnish.methods.describe import changed_settings, default_output_dir, describe_run, last_metrics
from burnish.methods.loop_building import build_loop, resolve_settings
from burnish.methods.opening import Inputs
from burnish.methods.session_building import Session, build_session
from burnish.methods.sizing import SizePlan, plan_devices
from burnish.methods.trainer_arguments import REFUSED, check_arguments
from burnish.models.adapters import has_adapter
from burnish.models.card import model_card
from burnish.models.export import export_model
from burnish.models.sampling import generate_samples


class TrainOutput(NamedTuple):
    """What train() returns, as transformers' does."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


class Trainer(ABC):
    """What the trainers of all methods share; a method names its settings, its groups and its objective."""

    config_type: ClassVar[type]
    kind: ClassVar[GroupKind]
    compares: ClassVar[bool] = False
    """Whether the method takes a reference model."""
    refused: ClassVar[dict[str, str]] = REFUSED
    """Arguments that the trainer does not take, and what to do instead."""

    def __init__(
        self,
        model: str | nn.Module | None = None,
        args: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        peft_config: Any = None,
        callbacks: Sequence[Any] | None = None,
        **others: Any,
    ) -> None:
        """Take what TRL's trainer takes, in its order; names in `args` stand in for what is not given.

        Nothing is loaded before train(), evaluate(), save_model(), or the first look at `model`.

        Args:
            model: the policy, or its name.
            args: settings, such as DPOConfig.
            data_collator: keeps TRL's order of arguments; must be None.
            train_dataset: rows: a Dataset, a list of dicts, or a file's name.
            eval_dataset: rows to evaluate on; a dict of several sets gives eval_NAME_loss and so on for each.
            processing_class: a fast tokenizer.
            peft_config: peft's configuration of an adapter to train.
            callbacks: transformers' TrainerCallback objects or classes.
            others: ref_model where the method compares with one; what TRL takes besides is refused by name.

        Raises:
            ConfigError: an argument that is not supported, or `args` of another method.
        """
        if args is not None and not isinstance(args, self.config_type):
            wanted = self.config_type.__name__
            raise ConfigError(f"{type(self).__name__}(args=…) must be a {wanted}, not a {type(args).__name__}")
        ref_model = others.pop("ref_model", None) if self.compares else None
        processing_class = others.pop("tokenizer", processing_class)
        settings = {field.name for field in fields(self.config_type)}
        given = {"data_collator": data_collator, "peft_config": peft_config, **others}
        check_arguments(self, given, settings)
        args = self.config_type() if args is None else replace(args)
        if isinstance(model, str):
            args.model_name_or_path, model = model, None
        if isinstance(ref_model, str):
            args.ref_model_name_or_path, ref_model = ref_model, None
        self.args = args
        self.inputs = Inputs(model, ref_model, processing_class, train_dataset, eval_dataset, peft_config)
        self.user_callbacks = list(callbacks or [])
        self.method = self.build_method()
        self.run_dir: RunDir | None = None
        self._session: Session | None = None
        self._loop: TrainingLoop | None = None
        self._run_checkpoints: RunCheckpoints | None = None
        self._has_begun = False
        self._is_unfinished = False
        self._started = time.monotonic()
        disable_bars(args.disable_tqdm)

    @abstractmethod
    def build_method(self) -> Method:
        """Make the objective from the settings."""

    @property
    def model(self) -> nn.Module:
        if not self._has_begun:
            self.session.begun = None  # whoever asks for the model before the first step may change it
        return self.session.model

    @property
    def processing_class(self) -> Any:
        return self.session.tokenizer

    @property
    def accelerator(self) -> Any:
        return self.session.accelerator

    @property
    def state(self) -> Any:
        return self.loop.callbacks.trainer_state()

    @property
    def session(self) -> Session:
        """The run's parts, built at the first look."""
        if self._session is None:
            self.open_run_dir(self.args.resume_from_checkpoint)
            run_path = None if self.run_dir is None else self.run_dir.path
            self.inputs.has_callbacks = bool(self.user_callbacks)
            self._session = build_session(self.args, self.inputs, self.method, self.kind, run_path)
            resolve_settings(self.args, self._session)
        return self._session

    @property
    def loop(self) -> TrainingLoop:
        if self._loop is None:
            self._loop = build_loop(
                self.args,
                self.session,
                self.method,
                user_callbacks=self.user_callbacks,
                run_dir=self.run_dir,
                save=lambda must_succeed: self._checkpoints.save(must_succeed=must_succeed),
                settle=lambda: self._checkpoints.settle(),  # noqa: PLW0108 (checkpoints need the loop)
                started=self._started,
            )
        return self._loop

    @property
    def _is_for_paper(self) -> bool:
        return self.args.devices is not None or self.args.device_memory is not None

    @property
    def _checkpoints(self) -> RunCheckpoints:
        if self._run_checkpoints is None:
            self._run_checkpoints = RunCheckpoints(self.args, self.session, self.method, self.loop, self._claimed())
        return self._run_checkpoints

    def open_run_dir(self, resume: str | bool | None) -> None:
        """Claim the output folder, before anything is loaded."""
        if self._is_for_paper:
            raise ConfigError(
                "--devices and --device_memory are what a --dry_run plans for: add it, or leave them out."
            )
        if self.run_dir is not None or self.args.dry_run:
            return
        claimed: list[RunDir] = []

        def claim() -> str:
            name = self.args.output_dir or default_output_dir(self.method.name, self.args.model_name_or_path)
            claimed.append(RunDir.create(name, overwrite=self.args.overwrite, resume=resume))
            return str(name)

        self.args.output_dir = join_ranks().once("run directory", claim)
        self.run_dir = claimed[0] if claimed else RunDir.follow(self.args.output_dir)

    def plan(self) -> RunPlan | SizePlan:
        """What the run will do, in numbers; with --devices or --device_memory, whether it fits, by the config alone."""
        if self._is_for_paper:
            return plan_devices(self.args, self.inputs, self.method, self.kind)
        return describe_run(self.session, self.method, self.args)

    def train(self, resume_from_checkpoint: str | bool | None = None) -> TrainOutput:
        """Train to the end, or from a checkpoint on.

        Args:
            resume_from_checkpoint: auto (or True) for the newest good checkpoint, or a checkpoint's path; None takes
                the setting of the same name.

        Raises:
            Preempted: SIGTERM, SIGINT or --max_time asked for it; a checkpoint is committed, the state says preempted.
            BurnishError: see burnish.errors; the run's state says failed.
        """
        resume = resume_from_checkpoint or self.args.resume_from_checkpoint
        self.args.resume_from_checkpoint = "auto" if resume is True else resume
        return self._train(lambda: None)

    def train_and_export(self) -> Path:
        """Train as `train` does, write `model/`, and only then call the run done; gives the model's folder.

        Raises:
            Preempted: as in `train`; no model is written.
            BurnishError: as in `train`, or the model could not be written (IntegrityError).
        """
        self._train(self._export)
        return self._claimed().model_dir

    def _train(self, and_then: Callable[[], object]) -> TrainOutput:
        """Train, do what comes with a finished run, and write how it ended."""
        loop, run_dir = self.loop, self._claimed()
        loop.watchdog.on_hang = lambda: self._write_hang(run_dir, loop.counters.step)
        with loop.stop.listening(), loop.watchdog.watching():
            self._checkpoints.resume_or_start()
            self._write_beginning(run_dir, loop.counters.step)
            self._is_unfinished = True
            try:
                summary = loop.run()
                if self.args.save_strategy != "no":
                    loop.save_now()
                self._checkpoints.finish()
                and_then()
            except BaseException as error:
                self._write_ending(run_dir, loop.counters.step, error)
                raise
            finally:
                finish_trackers(self.accelerator)
            self._is_unfinished = False
            run_dir.write_state("done", loop.counters.step, 0)
        return TrainOutput(loop.counters.step, summary.get("train_loss", math.nan), summary)

    def _write_beginning(self, run_dir: RunDir, step: int) -> None:
        """Put into the run directory what is known before the first step, and open the trackers."""
        self._has_begun = True
        run_dir.write_data_report(self._data_report())
        run_dir.write_settings(asdict(self.args))
        run_dir.write_state("running", step)
        run_name = self.args.run_name or run_dir.path.name
        start_trackers(self.accelerator, project="burnish", run_name=run_name, settings=asdict(self.args))

    def _write_ending(self, run_dir: RunDir, step: int, error: BaseException) -> None:
        """Write that the run was preempted or has failed; a folder that has vanished does not hide the error."""
        self._checkpoints.abandon()
        status = "preempted" if isinstance(error, Preempted) else "failed"
        code = error.exit_code if isinstance(error, BurnishError) else 1
        with suppress(IntegrityError):
            run_dir.write_state(status, step, code)
        if isinstance(error, Preempted):
            self.session.ranks.wait()  # a launcher that sees one rank leave ends the others, and rank 0 still writes

    def _write_hang(self, run_dir: RunDir, step: int) -> None:
        """Write that the run has failed, from the watchdog's thread; the run itself does not answer any more."""
        with suppress(IntegrityError):
            run_dir.write_state("failed", step, EXIT_HANG)

    def evaluate(self) -> dict[str, float]:
        """Evaluate the model as it stands, write a record for each set, and return all metrics.

        Raises:
            ConfigError: there are no evaluation rows.
        """
        if self.loop.evaluation is None:
            raise ConfigError("there are no evaluation rows: give eval_dataset, --eval_dataset_name or --eval_data.")
        return self.loop.evaluate()

    def save_model(self, output_dir: str | Path | None = None) -> Path:
        """Write an ordinary Hugging Face folder with model (or adapter), tokenizer, template and card.

        Args:
            output_dir: the folder; None writes `model/` in the run directory.

        Raises:
            ConfigError: training was stopped before its end, and no folder is named.
        """
        if self._is_unfinished and output_dir is None:
            raise ConfigError(
                "the run did not finish, and model/ is for finished ones: resume it, or name another folder in "
                "save_model(folder)."
            )
        return self._export(None if output_dir is None else Path(output_dir))

    def _export(self, folder: Path | None = None) -> Path:
        folder = folder or self._claimed().model_dir
        self._export_to(folder)
        return folder

    def _export_to(self, folder: Path) -> None:
        """Write the model on rank 0; all ranks call it, for slices of weights are put together first."""
        weights = None
        if is_sharded(self.model):
            weights = whole_weights(self.model, trainable_only=has_adapter(self.model))
        if not self.session.ranks.is_main:
            return
        card = model_card(
            base_model=self.args.model_name_or_path or getattr(self.model, "name_or_path", None),
            method=self.method.name,
            settings=changed_settings(self.args),
            data=self._data_facts(),
            metrics=last_metrics(self.loop.callbacks.state.log_history),
            adapter=has_adapter(self.model),
        )
        export_model(self.model, self.processing_class, folder, card=card, state_dict=weights)

    def log_metrics(self, split: str, metrics: dict[str, float]) -> None:
        """Print metrics of a split, one a line, on rank 0."""
        if not self.session.ranks.is_main:
            return
        print(f"***** {split} metrics *****")
        for name, value in sorted(metrics.items()):
            print(f"  {name:<30} = {value:.6g}")

    def save_metrics(self, split: str, metrics: dict[str, float]) -> None:
        """Write metrics of a split to <split>_results.json in the run directory."""
        path = self._claimed().path / f"{split}_results.json"
        if self.session.ranks.is_main:
            path.write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n")

    def save_state(self) -> None:
        """Write transformers' trainer_state.json, with the log history, into the run directory."""
        path = self._claimed().path / "trainer_state.json"
        if self.session.ranks.is_main:
            self.state.save_to_json(str(path))

    def add_callback(self, callback: Any) -> None:
        """Add one of transformers' TrainerCallback objects or classes. Raises ConfigError once a run is prepared."""
        if self._loop is not None:
            raise ConfigError("add_callback: the run is prepared already; add callbacks before train()")
        self.user_callbacks.append(callback)

    def end(self) -> None:
        """End a script: close the trackers and the process group, and release the output folder."""
        self.accelerator.end_training()
        self.close()

    def push_to_hub(self, *_: Any, **__: Any) -> None:
        """Refused: burnish uploads nothing."""
        raise ConfigError("push_to_hub: burnish uploads nothing. Use `hf upload NAME FOLDER` on the model folder.")

    def sample(self, phase: str) -> list[dict[str, Any]]:
        """Answer the first held-out prompts on rank 0, and keep the answers in samples.jsonl under the phase's name."""
        session, count = self.session, self.args.num_samples
        together = is_sharded(session.model)
        if not session.ranks.is_main and not together:
            return []
        groups = next(iter(session.held_out.values()), session.train).groups
        prompted = (number for number, length in enumerate(groups.prompt_lengths) if length > 1)  # texts have no prompt
        prompts = [groups[number].prompt_ids.tolist() for number in islice(prompted, count)]
        if not prompts:
            return []
        replies = generate_samples(
            session.model,
            session.tokenizer,
            prompts,
            max_new_tokens=self.args.sample_max_new_tokens,
            generate=session.scorer.generate if together else None,
        )
        if not session.ranks.is_main:
            return []
        records = [
            {"phase": phase, "step": self.loop.counters.step, "prompt": session.tokenizer.decode(ids), "reply": reply}
            for ids, reply in zip(prompts, replies, strict=True)
        ]
        self._claimed().append_samples(records)
        return records

    def close(self) -> None:
        """Release the output folder; one that this run made and left empty is removed."""
        if self.run_dir is not None and self._has_begun:
            self.run_dir.release()
        elif self.run_dir is not None:
            self.run_dir.discard_if_empty()

    def _claimed(self) -> RunDir:
        if self.run_dir is None:
            raise ConfigError("--dry_run writes nothing: leave it out to train or save.")
        return self.run_dir

    def _data_report(self) -> dict[str, Any]:
        session = self.session
        named = {f"eval_{name}" if name else "eval": one for name, one in session.held_out.items()}
        return {name: one.report.as_dict() for name, one in {"train": session.train, **named}.items()}

    def _data_facts(self) -> dict[str, Any]:
        groups = self.session.train.groups
        facts = {"dataset": self.args.dataset_name, "groups": len(groups), "tokens": int(groups.num_tokens.sum())}
        return facts | {"report": self.session.train.report.one_line()}
