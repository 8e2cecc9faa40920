"""The first step begun before the last row is tokenised: the eager run to the last byte, or nothing of it is left."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import jobs
from burnish import DPOConfig, DPOTrainer, KTOConfig
from burnish.data.groups import PromptGroup
from burnish.engine.begun_step import BegunStep, begin_step
from burnish.engine.invariants import start_check
from burnish.engine.passes import Passes
from burnish.methods import ahead, first_step
from burnish.methods.ahead import obstacle_to_beginning
from burnish.methods.first_step import FirstStep
from burnish.methods.loop_building import build_passes
from burnish.methods.opening import Inputs
from jobs import POLICY, stage_job, write_completions, write_pairs
from runs import read_metrics, run_burnish

LAZY = ("--lazy_tokenise", True)
SAVES = ("--save_strategy", "steps", "--save_steps", 1)
CLOCKS = ("seconds", "runtime", "per_second", "time")


@dataclass
class Watched:
    """What became of the first step of a run in this process."""

    gate: Path
    begun: list[BegunStep] = field(default_factory=list)
    taken_up: list[bool] = field(default_factory=list)


@pytest.fixture
def use_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Begin with no prepared rows and no known reference when called with another name."""

    def use(name: str) -> None:
        monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / f"cache-{name}"))

    return use


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Let the process read the last row when the run has its first gradients, and no sooner."""
    seen = Watched(tmp_path / "gradients-exist")

    def begin(*arguments: Any) -> BegunStep:
        begun = begin_step(*arguments)
        assert begun._gradients
        seen.begun.append(begun)
        seen.gate.touch()
        return begun

    def take_up(begun: BegunStep, passes: Passes, groups: Sequence[PromptGroup]) -> bool:
        seen.taken_up.append(was_taken := original(begun, passes, groups))
        return was_taken

    original = BegunStep.take_up
    monkeypatch.setattr(first_step, "begin_step", begin)
    monkeypatch.setattr(BegunStep, "take_up", take_up)
    monkeypatch.setattr(ahead, "WORKER", "slow_worker")
    monkeypatch.setenv("PYTHONPATH", str(Path(jobs.__file__).parent))
    monkeypatch.setenv("GATE", str(seen.gate))
    return seen


def _with_dropped(rows: Path, kept: Callable[[int], object]) -> Path:
    """Make all rows but some hold nothing to learn from: a prompt without room for an answer, or one answer twice."""
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    for number, row in enumerate(lines):
        if not kept(number):
            row |= {"prompt_ids": [5] * 60} if number % 2 else {"rejected_ids": row["chosen_ids"]}
    rows.write_text("\n" + "".join(json.dumps(row) + "\n" for row in lines).rstrip())
    return rows


def _records(run: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if not any(clock in key for clock in CLOCKS)}
        for record in read_metrics(run)
    ]


def _weights(run: Path) -> dict[str, bytes]:
    """Every tensor that the run wrote: the model's, and in checkpoints the optimizer's and the random states."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.safetensors"))}


def _assert_equal(one: Path, other: Path) -> None:
    assert _records(one) == _records(other)
    tensors = _weights(one)
    assert any("checkpoints" in name for name in tensors)
    assert tensors == _weights(other)


@pytest.mark.parametrize(
    ("command", "kept", "words"),
    [
        pytest.param("dpo", lambda _: True, ["--num_samples", 2, "--sample_max_new_tokens", 4], id="no row dropped"),
        pytest.param("dpo", lambda n: n % 5, ["--max_tokens_per_micro_batch", 64], id="some dropped, accumulated"),
        pytest.param("dpo", lambda n: n % 6 == 1, ["--lr_scheduler_type", "cosine"], id="most dropped"),
        pytest.param("dpo", lambda n: n in (2, 9), ["--train_sampling_strategy", "sequential"], id="two rows left"),
        pytest.param("dpo", lambda n: n % 3, ["--use_peft", True, "--lora_dropout", 0.1], id="adapter with dropout"),
        pytest.param("dpo", lambda n: n % 3, ["--sync_ref_model", True, "--ref_model_sync_steps", 2], id="moving"),
        pytest.param("dpo", lambda n: n % 3, ["--loss_type", "aot", "--max_tokens_per_micro_batch", 64], id="coupled"),
        pytest.param("dpo", lambda n: n % 3, ["--loss_type", "bco_pair"], id="running statistics"),
        pytest.param("dpo", lambda n: n % 3, ["--loss_type", "simpo", "--beta", 2], id="no reference"),
        pytest.param("reward", lambda n: n % 3, [], id="reward"),
    ],
)
def test_the_run_is_the_eager_run(
    tmp_path: Path, watched: Watched, use_cache: Any, command: str, kept: Callable[[int], object], words: list[Any]
) -> None:
    rows = _with_dropped(write_pairs(tmp_path / "rows.jsonl", count=60), kept)
    words = ["--max_length", 50, "--max_steps", 3, *SAVES, "--eval_dataset_name", rows, "--eval_steps", 2, *words]
    for name, more in (("eager", ()), ("lazy", LAZY)):
        use_cache(name)
        run_burnish(*stage_job(command, rows, tmp_path / name, *words, *more))
    assert watched.taken_up == [True]
    _assert_equal(tmp_path / "eager", tmp_path / "lazy")


@pytest.mark.parametrize("words", [["--packing", True, "--neftune_noise_alpha", 5], []], ids=["packed with noise", ""])
def test_supervised_tuning_is_the_eager_run(tmp_path: Path, watched: Watched, use_cache: Any, words: list[Any]) -> None:
    rows = _with_dropped(write_completions(tmp_path / "rows.jsonl", count=60), lambda n: n % 2 == 0)
    words = ["--max_length", 50, "--max_steps", 3, *SAVES, *words]
    for name, more in (("eager", ()), ("lazy", LAZY)):
        use_cache(name)
        run_burnish(*stage_job("sft", rows, tmp_path / name, *words, *more))
    assert watched.taken_up == [True]
    _assert_equal(tmp_path / "eager", tmp_path / "lazy")


def test_a_reference_that_is_known_is_let_go(
    tmp_path: Path, watched: Watched, use_cache: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = _with_dropped(write_pairs(tmp_path / "rows.jsonl"), lambda n: n % 5)
    words = ["--max_length", 50, "--max_steps", 3, *SAVES, "--data_cache_dir"]
    use_cache("one for all")
    for name, more in (("first", ()), ("eager", ()), ("lazy", LAZY)):
        run_burnish(*stage_job("dpo", rows, tmp_path / name, *words, tmp_path / f"data-{name}", *more))
        assert ("no reference model is loaded" in capfd.readouterr().err) == (name != "first")
    assert watched.taken_up == [True]
    _assert_equal(tmp_path / "eager", tmp_path / "lazy")


def test_of_other_rows_than_the_run_begins_with_nothing_is_left(
    tmp_path: Path, watched: Watched, use_cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _with_dropped(write_pairs(tmp_path / "rows.jsonl", count=60), lambda n: n % 3)
    words = ["--max_length", 50, "--max_steps", 3, *SAVES, "--use_peft", True, "--lora_dropout", 0.1]
    for name, more in (("eager", ()), ("lazy", LAZY)):
        use_cache(name)
        monkeypatch.setenv("WRONG_FRONT", "yes")
        run_burnish(*stage_job("dpo", rows, tmp_path / name, *words, *more))
    assert len(watched.begun) == 1
    assert watched.taken_up == []
    _assert_equal(tmp_path / "eager", tmp_path / "lazy")


def test_where_beginning_fails_the_run_goes_on(
    tmp_path: Path, watched: Watched, use_cache: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def fail(passes: Passes, groups: Sequence[PromptGroup], *_: object) -> None:
        passes.train(range(len(groups)), groups, passes.method.denominators(groups), first_step_sums())
        watched.gate.touch()
        raise ValueError("no luck")

    from burnish.engine.metrics import MetricSums as first_step_sums  # noqa: N813

    monkeypatch.setattr(first_step, "begin_step", fail)
    rows = write_pairs(tmp_path / "rows.jsonl")
    for name, more in (("eager", ()), ("lazy", LAZY)):
        use_cache(name)
        run_burnish(*stage_job("dpo", rows, tmp_path / name, "--max_steps", 2, *SAVES, *more))
    assert "waits for all rows, since beginning it failed (ValueError: no luck)" in capfd.readouterr().err
    _assert_equal(tmp_path / "eager", tmp_path / "lazy")


def _begun(tmp_path: Path) -> tuple[Any, list[PromptGroup], Callable[[], BegunStep]]:
    """Passes of a run with dropout, its first groups, and what begins its first step."""
    settings = DPOConfig(
        model_name_or_path=str(POLICY),
        dataset_name=str(write_pairs(tmp_path / "rows.jsonl")),
        output_dir=str(tmp_path / "run"),
        use_peft=True,
        lora_dropout=0.1,
        reference_cache="memory",
    )
    trainer = DPOTrainer(args=settings)
    session = trainer.session
    passes = build_passes(session, trainer.method, session.accelerator)
    groups = [session.train.groups[int(index)] for index in session.sampler.groups_of(0)]
    check = start_check(session.reference, session.model, trainer.method)
    return passes, groups, lambda: begin_step(passes, groups, session.device, check)


def _gradients(passes: Passes) -> list[torch.Tensor]:
    return [parameter.grad for parameter in passes.scorer.parameters() if parameter.grad is not None]


def test_a_step_that_is_begun_leaves_the_run_as_it_was_until_it_is_taken_up(tmp_path: Path, use_cache: Any) -> None:
    use_cache("only")
    passes, groups, begin = _begun(tmp_path)
    state = torch.get_rng_state()
    begun = begin()
    assert passes.reference is not None
    assert (_gradients(passes), passes.reference.pending()) == ([], None)
    assert torch.equal(torch.get_rng_state(), state)
    assert begun.take_up(passes, groups)
    taken, after, said = _gradients(passes), torch.get_rng_state(), passes.reference.pending()
    passes.scorer.zero_grad(set_to_none=True)
    passes.reference.take_pending()
    torch.set_rng_state(state)
    trained = passes.train(range(len(groups)), groups, passes.method.denominators(groups), begun.sums)
    assert trained.value is None
    assert said is not None
    assert all(map(torch.equal, _gradients(passes), taken))
    assert torch.equal(torch.get_rng_state(), after)
    assert torch.equal(passes.reference.pending(), said)  # pyright: ignore[reportArgumentType]
    assert not torch.equal(after, state)


def _smaller_cut(passes: Passes, groups: list[PromptGroup]) -> None:
    passes.cut = passes.cut.within(40)


def _moved_weight(passes: Passes, groups: list[PromptGroup]) -> None:
    with torch.no_grad():
        next(passes.scorer.parameters()).add_(1)


def _drawn_number(passes: Passes, groups: list[PromptGroup]) -> None:
    torch.rand(1)


def _other_row(passes: Passes, groups: list[PromptGroup]) -> None:
    groups[1] = replace(groups[1], weight=2.0)


def _other_order(passes: Passes, groups: list[PromptGroup]) -> None:
    groups.reverse()


def _known_completion(passes: Passes, groups: list[PromptGroup]) -> None:
    assert passes.reference is not None
    passes.reference.store.add([(b"0" * 32, torch.zeros(3).numpy())])


@pytest.mark.parametrize(
    "change", [_smaller_cut, _moved_weight, _drawn_number, _other_row, _other_order, _known_completion]
)
def test_another_step_than_the_one_begun_takes_nothing_up(
    tmp_path: Path, use_cache: Any, change: Callable[[Passes, list[PromptGroup]], None]
) -> None:
    use_cache("only")
    passes, groups, begin = _begun(tmp_path)
    begun = begin()
    change(passes, groups)
    state = torch.get_rng_state()
    assert not begun.take_up(passes, groups)
    assert passes.reference is not None
    assert (_gradients(passes), passes.reference.pending()) == ([], None)
    assert torch.equal(torch.get_rng_state(), state)


def test_who_asks_for_the_model_gets_it_without_a_step_begun(tmp_path: Path, watched: Watched, use_cache: Any) -> None:
    use_cache("only")
    settings = DPOConfig(
        model_name_or_path=str(POLICY),
        dataset_name=str(write_pairs(tmp_path / "rows.jsonl")),
        output_dir=str(tmp_path / "run"),
        lazy_tokenise=True,
        max_steps=1,
    )
    trainer = DPOTrainer(args=settings)
    assert trainer.session.begun is watched.begun[0]
    assert trainer.model.training
    trainer.train()
    assert watched.taken_up == []


@pytest.mark.parametrize(
    ("device", "precision", "given", "words"),
    [
        ("npu", "bf16", False, "the token budget depends on the longest (--max_tokens_per_micro_batch sets it)"),
        ("cpu", "fp16", False, "fp16 scales losses"),
        ("cpu", "fp32", True, "they bring the reference's log-probabilities"),
    ],
)
def test_nothing_is_built_of_the_first_rows_where_the_others_decide(
    device: str, precision: str, given: bool, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    opened: Any = SimpleNamespace(
        device=SimpleNamespace(is_accelerator=device != "cpu"),
        precision=SimpleNamespace(name=precision),
        train=SimpleNamespace(groups=SimpleNamespace(has=lambda column: given and column == "ref_logps")),
    )
    method: Any = None
    step = FirstStep(DPOConfig(), Inputs(), method)
    step.begin(opened)
    assert f"the first step waits for all rows, since {words}\n" in capfd.readouterr().err
    assert step.complete(opened) is None
    assert not step.has_used_start


def test_callbacks_make_the_first_step_wait(tmp_path: Path, use_cache: Any, capfd: pytest.CaptureFixture[str]) -> None:
    use_cache("only")
    settings = DPOConfig(
        model_name_or_path=str(POLICY),
        dataset_name=str(write_pairs(tmp_path / "rows.jsonl")),
        output_dir=str(tmp_path / "run"),
        lazy_tokenise=True,
    )
    trainer = DPOTrainer(args=settings)
    trainer.add_callback(TrainerCallback())
    assert trainer.session.begun is None
    assert "the first step waits for all rows, since callbacks came from Python" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resume_from_checkpoint": "auto"}, "--resume_from_checkpoint goes on from another"),
        ({"precompute_ref_log_probs": True}, "--precompute_ref_log_probs scores all before it"),
        ({"eval_on_start": True}, "--eval_on_start evaluates before it"),
        ({"profile": 2}, "--profile measures it"),
        ({"deepspeed": {"zero_optimization": {"stage": 1}}}, "--deepspeed takes its gradients"),
        ({}, None),
    ],
)
def test_what_makes_the_first_step_wait_is_said(settings: dict[str, Any], words: str | None) -> None:
    assert obstacle_to_beginning(DPOConfig(**settings)) == words
    assert obstacle_to_beginning(KTOConfig()) == "the labels of all are balanced"
    assert obstacle_to_beginning(DPOConfig(**settings), ["callbacks"]) == "callbacks came from Python"
