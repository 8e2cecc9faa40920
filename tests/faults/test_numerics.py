"""Numbers that are not finite, losses that spike, and a start that is not what the mathematics says."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from burnish.engine.manifest import scan_checkpoints
from faults.harness import Job, assert_equal_runs, checkpoint, good_steps, make_model, records, state, tensors

EVERY = ("--save_steps", 1, "--logging_steps", 1)
SPIKE = {"name": "scale_loss", "factor": "1000", "first": 20, "last": 20}
BAD = {
    "a NaN loss": {"name": "scale_loss", "factor": "nan"},
    "an infinite loss": {"name": "scale_loss", "factor": "inf"},
    "a NaN gradient": {"name": "poison_gradient", "value": "nan"},
    "an infinite gradient": {"name": "poison_gradient", "value": "inf"},
}


def poisoned_copy(model: Path, folder: Path, name: str, value: float) -> Path:
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[7] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def moved(run: Path, step: int) -> list[str]:
    """Weights and moments that a step changed."""
    before, after = tensors(run, step - 1), tensors(run, step)
    names = [name for name in before if not name.endswith(".lr")]  # the schedule goes on
    return [name for name in names if not torch.equal(before[name], after[name])]


@pytest.mark.parametrize("flag", ["--model_name_or_path", "--ref_model_name_or_path"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_with_a_weight_that_is_not_finite_is_refused_by_name(
    value: float, flag: str, tiny: Job, tmp_path: Path
) -> None:
    name = "model.layers.1.self_attn.q_proj.weight"
    folder = poisoned_copy(tiny.model, tmp_path / "poisoned", name, value)
    ended = tiny.run("run", flag, folder, expect=4)
    assert f"1 of 1024 values of {name} are NaN or infinite" in ended.err
    assert str(folder) in ended.err
    assert "Traceback" not in ended.err
    assert not tiny.path("run").exists()


@pytest.mark.parametrize("bad", BAD)
def test_a_step_that_is_not_finite_is_skipped_told_and_written_down(bad: str, tiny: Job) -> None:
    ended = tiny.run("run", *EVERY, "--max_steps", 8, faults=({**BAD[bad], "first": 5, "last": 5},))
    run = tiny.path("run")
    assert moved(run, 5) == []
    (oddity,) = [record for record in records(run) if record["kind"] == "oddity"]
    assert moved(run, 6) != []
    told = oddity["loss"] if "loss" in bad else oddity["grad_norm"]
    assert ("the loss is" if "loss" in bad else "the gradient's norm is") in oddity["problem"]
    assert told == ("NaN" if "NaN" in bad else "Infinity")
    assert (oddity["step"], oddity["action"], len(oddity["rows"])) == (5, "the step is skipped", 4)
    assert f"rows {', '.join(map(str, oddity['rows']))}" in ended.err
    logged = {record["step"]: record for record in records(run) if record["kind"] == "train"}
    if "loss" in bad:
        assert logged[5]["loss"] == told
    assert logged[8]["skipped_steps"] == 1
    assert all(math.isfinite(logged[step]["loss"]) for step in (4, 6, 7, 8))
    unhealthy = [one.step for one in scan_checkpoints(run / "checkpoints") if not one.healthy]
    assert unhealthy == [5]


@pytest.mark.parametrize("most", [3, 2])
def test_too_many_in_a_row_stop_the_run_with_four_and_the_last_good_checkpoint_stays(
    most: int, tiny: Job, golden: Path
) -> None:
    words = ("--save_steps", 1, "--save_total_limit", 1, "--max_skipped_steps", most)
    ended = tiny.run("run", *words, expect=4, faults=({**BAD["a NaN loss"], "first": 8, "last": 99},))
    run = tiny.path("run")
    assert ended.err.splitlines()[-2].startswith(f"burnish: {most} steps in a row had to be skipped")
    assert (state(run)["status"], state(run)["exit_code"], state(run)["step"]) == ("failed", 4, 7 + most)
    assert not (run / "model").exists()
    good = [one.step for one in scan_checkpoints(run / "checkpoints", verify="full") if one.healthy]
    assert good == [7]
    ended = tiny.resume("run", "--max_skipped_steps", most)
    assert "resumed after step 7 of" in ended.err
    assert_equal_runs(run, golden)


def test_skips_that_do_not_follow_each_other_stop_nothing(tiny: Job) -> None:
    faults = [{**BAD["a NaN loss"], "first": step, "last": step} for step in (3, 5, 7, 9)]
    tiny.run("run", "--max_steps", 10, "--max_skipped_steps", 2, faults=tuple(faults))
    assert records(tiny.path("run"))[-1]["skipped_steps"] == 4


def test_weights_that_became_nan_are_never_committed_as_good(tiny: Job, golden: Path) -> None:
    words = ("--save_total_limit", 1)
    ended = tiny.run("run", *words, expect=4, faults=({"name": "poison_weights", "step": 9},))
    run = tiny.path("run")
    assert "step 9: model model.embed_tokens.weight holds NaN or infinity" in ended.err
    marks = {one.step: one.healthy for one in scan_checkpoints(run / "checkpoints", verify="full")}
    assert marks == {6: True, 9: False}
    ended = tiny.resume("run", *words)
    assert "step-9 is not used: step-9 was written after a non-finite step" in ended.err
    assert_equal_runs(run, golden)
    assert good_steps(run) == [32]


def test_the_uninterrupted_run_has_no_spike(golden: Path) -> None:
    assert [record for record in records(golden) if record["kind"] == "oddity"] == []


def test_a_spike_is_told_and_counted_and_the_run_goes_on(tiny: Job) -> None:
    ended = tiny.run("run", faults=(SPIKE,))
    (oddity,) = [record for record in records(tiny.path("run")) if record["kind"] == "oddity"]
    assert (oddity["step"], oddity["action"]) == (20, "the run goes on")
    assert "σ above the last 19 steps'" in oddity["problem"]
    assert "warning: step 20: the loss is" in ended.err
    assert records(tiny.path("run"))[-1]["loss_spikes"] == 1


def test_a_learning_rate_gone_wrong_for_one_step_is_noticed_at_the_next(tiny: Job) -> None:
    fault = {"name": "raise_learning_rate", "step": 18, "factor": 1e4}
    tiny.run("run", faults=(fault,))
    oddities = [record["step"] for record in records(tiny.path("run")) if record["kind"] == "oddity"]
    assert oddities[0] == 19


def test_a_spike_is_skipped_where_that_is_the_policy(tiny: Job) -> None:
    tiny.run("run", *EVERY, "--max_steps", 21, "--loss_spike", "skip", faults=(SPIKE,))
    run = tiny.path("run")
    assert moved(run, 20) == []
    last = records(run)[-1]
    assert (last["skipped_steps"], last["loss_spikes"]) == (1, 1)


def test_a_spike_stops_the_run_where_that_is_the_policy(tiny: Job) -> None:
    ended = tiny.run("run", "--loss_spike", "stop", expect=4, faults=(SPIKE,))
    assert "step 20: the loss is" in ended.err
    assert "--loss_spike stop" in ended.err
    run = tiny.path("run")
    assert (state(run)["status"], state(run)["exit_code"]) == ("failed", 4)
    assert good_steps(run)[-1] == 18


@pytest.mark.parametrize("setting", [("--loss_spike_sigmas", 1e6), ("--loss_spike_window", 8)])
def test_how_far_and_over_how_many_steps_is_a_setting(setting: Any, tiny: Job) -> None:
    """A limit of a million σ lets the spike pass; a window of 8 steps finds one at step 6 already."""
    early = {**SPIKE, "first": 6, "last": 6}
    tiny.run("run", *setting, "--max_steps", 8, faults=(early,))
    found = [record for record in records(tiny.path("run")) if record["kind"] == "oddity"]
    assert len(found) == (setting[0] == "--loss_spike_window")


STILL = ("--disable_dropout", "true", "--max_steps", 2)


def test_a_policy_that_is_not_its_own_reference_at_the_start_ends_the_run(tiny: Job) -> None:
    ended = tiny.run("run", *STILL, expect=4, faults=({"name": "unlike_reference", "nats": 0.01},))
    assert "before the first step, policy and reference differ by 0.01 nats" in ended.err
    assert state(tiny.path("run"))["exit_code"] == 4


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo", "robust", "apo_zero"])
def test_a_loss_that_is_not_its_closed_form_at_the_start_ends_the_run(loss: str, tiny: Job) -> None:
    words = (*STILL, "--loss_type", loss, *(("--label_smoothing", 0.1) if loss == "robust" else ()))
    fault = {"name": "scale_loss", "factor": "1.001", "first": 1, "last": 1}
    ended = tiny.run("run", *words, expect=4, faults=(fault,))
    assert "before the first step the loss is" in ended.err
    assert "and its closed form is" in ended.err
    if loss == "sigmoid":
        assert "closed form is 0.693147" in ended.err.replace("0.346574", "0.693147")


def test_a_good_start_passes_with_rewards_of_zero_and_the_loss_log_two(tiny: Job) -> None:
    tiny.run("run", *STILL, "--logging_steps", 1)
    first = records(tiny.path("run"))[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards/chosen"] == first["rewards/rejected"] == 0


def test_records_are_json_with_every_value_as_it_was(tiny: Job) -> None:
    tiny.run("run", *EVERY, "--max_steps", 6, faults=({**BAD["a NaN loss"], "first": 5, "last": 5},))
    lines = (tiny.path("run") / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")) for line in lines]
    assert [record["step"] for record in found if record["kind"] == "oddity"] == [5]


def test_other_weights_of_the_same_shape_are_no_fault(tiny: Job, tmp_path: Path) -> None:
    """A reference of its own differs at the start, and shall."""
    other = make_model(tmp_path / "other", seed=3)
    tiny.run("run", *STILL, "--ref_model_name_or_path", other)
    assert checkpoint(tiny.path("run"), 2).exists()
