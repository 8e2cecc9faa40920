"""The command on a simulated machine, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from burnish.device.doctor.probes import two_ranks
from burnish.device.fused.table import OPERATORS
from jobs import POLICY, job, write_pairs
from npu.simulator.hccl import LOSSES_VARIABLE
from npu.simulator.machine import SimulatedMachine, read_launches
from runs import read_metrics

pytestmark = pytest.mark.slow


def test_the_demo_trains_on_the_npu(machine: SimulatedMachine, tmp_path: Path) -> None:
    """`burnish dpo` alone, three steps, about 20 s: says what it uses, and uses it."""
    log = tmp_path / "log"
    log.mkdir()
    traced = machine.with_variables(SIMULATED_NPU_LOG=str(log), BURNISH_CACHE=str(tmp_path / "cache"))
    done = traced.burnish("dpo", "--max_steps", 3, "--output_dir", tmp_path / "run", "--eval_strategy", "no")
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("device: npu:0, Ascend910B2, 64 GiB, CANN ")], done.stderr
    assert any("precision: bf16 (npu has it)" in line for line in lines)
    assert (
        "npu: prebuilt operators (jit_compile off), PYTORCH_NPU_ALLOC_CONF=expandable_segments:True, "
        "TASK_QUEUE_ENABLE=2; your own values of these variables win" in lines
    )
    assert f"fused operators: {', '.join(OPERATORS)} (--fused_operators none turns them off)" in lines
    assert "Replies to 256 held-out questions" in done.stdout
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    launches = read_launches(log)
    assert launches["aten::_fused_adamw_"] >= 3
    assert launches["npu::npu_fusion_attention_grad"] == launches["npu::npu_swiglu_backward"]
    assert launches["npu::npu_cross_entropy_loss_backward"] >= 3


def test_a_card_without_bfloat16_trains_in_scaled_fp16(machine: SimulatedMachine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    old = machine.with_variables(SIMULATED_NPU_CHIP="Ascend910PremiumA", SIMULATED_NPU_LOG=str(log))
    data = write_pairs(tmp_path / "pairs.jsonl")
    done = old.burnish(*job(data, tmp_path / "run", "--max_steps", 3))
    assert "precision: fp16 (this npu has no bf16; losses are scaled, and AdamW is not fused: " in done.stderr
    launches = read_launches(log)
    assert launches["aten::_fused_adamw_"] == 0
    assert launches["aten::_amp_foreach_non_finite_check_and_unscale_"] > 0
    assert "fused operators" not in done.stderr, "the vendor lists none of them for this card"
    losses = [record["loss"] for record in read_metrics(tmp_path / "run") if record["kind"] == "train"]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses[-1] != losses[0]
    refused = old.burnish(*job(data, tmp_path / "other", "--precision", "bf16"), check=False)
    assert refused.returncode == 2
    assert "--precision bf16: this npu has no bfloat16" in refused.stderr


def test_real_weights_take_two_steps(
    machine: SimulatedMachine, smollm2: Path, shared_dir: Path, tmp_path: Path
) -> None:
    """SmolLM2-135M with real pairs on npu:0 and on the CPU, float32, about a minute."""
    jobs = {
        device: [
            *("dpo", "--model_name_or_path", smollm2, "--dataset_name", shared_dir / "data/llmbar"),
            *("--output_dir", tmp_path / device, "--device", device, "--precision", "fp32", "--max_steps", 2),
            *("--global_batch_size", 2, "--logging_steps", 1, "--num_samples", 0, "--save_strategy", "no"),
            *("--max_train_samples", 4, "--max_length", 128, "--eval_strategy", "no", "--learning_rate", 1e-5),
            *("--max_tokens_per_micro_batch", 512, "--reference_cache", "memory"),
        ]
        for device in ("npu", "cpu")
    }
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps({name: [str(word) for word in words] for name, words in jobs.items()}))
    machine.python(Path(__file__).with_name("several_jobs.py"), file)
    npu, cpu = ([r["loss"] for r in read_metrics(tmp_path / name) if r["kind"] == "train"] for name in jobs)
    assert npu == pytest.approx(cpu, abs=1e-5)
    assert npu[1] < 0.6931
    launched, on_host = (read_launches(tmp_path / "launched" / name) for name in jobs)
    assert launched["aten::_fused_adamw_"] >= 2 > on_host["aten::_fused_adamw_"]


def test_no_visible_card_is_no_crash(machine: SimulatedMachine, tmp_path: Path) -> None:
    """Chosen and asked for, in one process, about 10 s."""
    empty = machine.with_variables(SIMULATED_NPU_COUNT="0")
    words = ["--model_name_or_path", POLICY, "--dataset_name", write_pairs(tmp_path / "pairs.jsonl"), "--dry_run"]
    told = repr(["dpo", *map(str, words)])
    twice = f"from burnish.cli.main import main; print(main({told}), main([*{told}, '--device', 'npu']))"
    done = empty.python("-c", twice)
    assert done.stdout.splitlines()[-1] == "0 2"
    assert "no npu: torch_npu sees no device; `burnish doctor` says why" in done.stderr + done.stdout
    assert "--device npu: torch_npu sees no device" in done.stderr


def test_the_doctor_holds_every_fused_operator_against_the_cpu_and_sums_over_two_cards(
    machine: SimulatedMachine,
) -> None:
    """`burnish doctor --smoke`, about 20 s; a card that computes an operator wrongly is in test_fused.py."""
    done = machine.with_variables(SIMULATED_NPU_COUNT="2").burnish("doctor", "--smoke", "--json", check=False)
    found = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    for operator in OPERATORS:
        assert found[f"fused_{operator}"]["status"] == "ok", found[f"fused_{operator}"]
        assert "npu:0: equal to the CPU within" in json.dumps(found[f"fused_{operator}"])
    assert found["all_reduce"]["status"] == "ok", found["all_reduce"]
    assert "two processes agree over hccl on npu" in json.dumps(found["all_reduce"])


def test_the_doctor_looks_at_the_sum_and_not_only_whether_one_comes_back(machine: SimulatedMachine) -> None:
    """Over a link that returns in good order and adds nothing, about 8 s; told as `ranks.wrong` in test_smoke.py."""
    broken = machine.with_variables(SIMULATED_NPU_COUNT="2", **{LOSSES_VARIABLE: "1"})
    done = broken.python(two_ranks.__file__, "hccl", "npu", check=False)
    assert done.returncode == 1, done.stderr
    assert '"good": true, "right": false' in done.stdout
