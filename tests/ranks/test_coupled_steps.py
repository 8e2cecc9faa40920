"""What couples a step couples it over ranks: balanced experts, KTO's KL term, AOT's order; evaluations too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM

from jobs import POLICY, stage_job, write_completions, write_pairs
from launching import run_ranks
from runs import read_metrics, run_burnish

pytestmark = pytest.mark.slow

TIMES = ("_runtime", "_per_second", "_seconds")
SAME_UPDATE = 1e-4
JOBS = ("experts", "experts-lora", "kto", "aot")


def _write_experts(folder: Path) -> Path:
    """A tiny mixture of experts with random weights whose router prefers some of them."""
    torch.manual_seed(7)
    config = Qwen3MoeConfig(
        vocab_size=AutoConfig.from_pretrained(POLICY).vocab_size, hidden_size=32, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, num_experts=6, num_experts_per_tok=3,
        moe_intermediate_size=24,
    )  # fmt: skip
    model = Qwen3MoeForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gate.weight"):
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(POLICY).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each job on one rank and on two; folders are named <job>-<ranks>."""
    folder = tmp_path_factory.mktemp("coupled")
    experts = ["--model_name_or_path", _write_experts(folder / "model"), "--router_aux_loss_coef", 0.5]
    pairs, held_out = (write_pairs(folder / f"pairs-{n}.jsonl", seed=n, count=n) for n in (50, 9))
    rows, others = (write_completions(folder / f"rows-{n}.jsonl", seed=n, count=n, labelled=True) for n in (51, 10))
    lora = ["--use_peft", "--lora_r", 4, "--lora_target_modules", "q_proj", "v_proj"]
    jobs: dict[str, list[Any]] = {
        "experts": ["dpo", pairs, held_out, *experts],
        "experts-lora": ["dpo", pairs, held_out, *experts, *lora],
        "kto": ["kto", rows, others, "--beta", 0.3],
        "aot": ["dpo", pairs, held_out, "--loss_type", "aot"],
    }

    def words(name: str, ranks: int) -> list[Any]:
        command, data, evaluated, *flags = jobs[name]
        settings = ["--global_batch_size", 7, "--max_steps", 6, "--eval_steps", 3, "--reference_cache", "memory"]
        settings += ["--eval_dataset_name", evaluated, "--max_tokens_per_micro_batch", 100]
        return stage_job(command, data, folder / f"{name}-{ranks}", *settings, *flags)

    for name in JOBS:
        run_burnish(*words(name, 1))
    run_ranks(2, [words(name, 2) for name in JOBS], folder)
    return folder


@pytest.mark.parametrize("name", JOBS)
def test_two_ranks_write_the_records_of_one(name: str, runs: Path) -> None:
    one, two = read_metrics(runs / f"{name}-1"), read_metrics(runs / f"{name}-2")
    assert [(record["step"], record["kind"]) for record in one] == [(record["step"], record["kind"]) for record in two]
    for expected, record in zip(one, two, strict=True):
        assert list(record) == list(expected)
        for key in record:
            if isinstance(record[key], float) and not key.endswith(TIMES):
                assert record[key] == pytest.approx(expected[key], abs=1e-4, rel=1e-5), key
    told = [record for record in one if record["kind"] != "summary"]
    coupled = "aux_loss" if "experts" in name else "kl" if name == "kto" else "loss"
    assert all(record.get(coupled, record.get(f"eval_{coupled}", -1)) >= 0 for record in told)


@pytest.mark.parametrize("name", JOBS)
def test_two_ranks_move_the_weights_as_one(name: str, runs: Path) -> None:
    has_adapter, has_experts = name == "experts-lora", "experts" in name
    file = "adapter_model.safetensors" if has_adapter else "model.safetensors"
    one, two = (load_file(runs / f"{name}-{ranks}" / "model" / file) for ranks in (1, 2))
    if has_adapter:  # whose second matrices begin at 0
        start = {key: torch.zeros_like(value) for key, value in one.items() if "lora_B" in key}
    else:
        start = load_file((runs / "model" if has_experts else POLICY) / "model.safetensors")
    apart = sum(float((one[key] - two[key]).square().sum()) for key in start)
    moved = sum(float((one[key] - start[key]).square().sum()) for key in start)
    assert moved > 0
    assert (apart / moved) ** 0.5 < SAME_UPDATE
