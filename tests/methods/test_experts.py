"""The balancing loss of mixture-of-experts models: of the whole step, whatever its cut, and as transformers has it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from burnish.models.cached_reference import CachedReference
from burnish.scoring.scorer import Scorer
from jobs import POLICY, job, stage_job, write_completions, write_pairs
from runs import read_metrics, run_burnish

SAME_UPDATE = 1e-4
SHAPE = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip


def _config(name: str, vocab_size: int) -> Any:
    shape: dict[str, Any] = {**SHAPE, "vocab_size": vocab_size}
    if name == "mixtral":
        return MixtralConfig(**shape, num_local_experts=4, num_experts_per_tok=2, sliding_window=None)
    return Qwen3MoeConfig(**shape, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=24)


@pytest.fixture(scope="module", params=["mixtral", "qwen3_moe"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights whose router prefers some experts."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    torch.manual_seed(7)
    vocab_size = AutoModelForCausalLM.from_pretrained(POLICY).config.vocab_size
    config = _config(request.param, vocab_size)
    made = (MixtralForCausalLM if request.param == "mixtral" else Qwen3MoeForCausalLM)(config)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("gate.weight"):
                parameter.normal_(std=0.3)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _experts_job(model: Path, data: Path, output: Path, *words: Any) -> list[Any]:
    return [*job(data, output, "--model_name_or_path", model, "--reference_cache", "memory"), *words]


def _whole_step_loss(model: Path, rows: list[dict[str, Any]], names: tuple[str, ...]) -> float:
    """transformers' own function on all sequences of the step, padded on the right."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    sequences = [row["prompt_ids"] + row[name] for row in rows for name in names]
    length = max(map(len, sequences))
    ids = torch.tensor([sequence + [0] * (length - len(sequence)) for sequence in sequences])
    mask = torch.tensor([[1] * len(sequence) + [0] * (length - len(sequence)) for sequence in sequences])
    with torch.no_grad():
        outputs = loaded(ids, attention_mask=mask, output_router_logits=True)
    value = load_balancing_loss_func(outputs.router_logits, loaded.num_experts, loaded.num_experts_per_tok, mask)
    return float(value)


def _rows(data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.read_text().splitlines()]


@pytest.mark.parametrize("max_tokens", [40, 100_000], ids=["8 micro-batches", "one"])
def test_the_steps_balancing_loss_is_that_of_transformers(model: Path, max_tokens: int, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    words = ["--max_steps", 1, "--max_tokens_per_micro_batch", max_tokens, "--eval_dataset_name", data]
    words += ["--learning_rate", 0, "--eval_steps", 1]
    run_burnish(*_experts_job(model, data, tmp_path / "with", *words, "--router_aux_loss_coef", 0.5))
    run_burnish(*_experts_job(model, data, tmp_path / "without", *words, "--router_aux_loss_coef", 0))
    record, plain = read_metrics(tmp_path / "with")[0], read_metrics(tmp_path / "without")[0]
    expected = _whole_step_loss(model, _rows(data), ("chosen_ids", "rejected_ids"))
    assert record["aux_loss"] == pytest.approx(expected, rel=1e-5)
    assert record["loss"] - plain["loss"] == pytest.approx(0.5 * expected, rel=1e-5)
    assert "aux_loss" not in plain
    evaluated = next(record for record in read_metrics(tmp_path / "with") if record["kind"] == "eval")
    assert evaluated["eval_aux_loss"] == pytest.approx(expected, rel=1e-5)
    assert evaluated["eval_loss"] == pytest.approx(record["loss"], rel=1e-5)


@pytest.mark.parametrize("method", ["dpo", "sft", "kto"])
def test_ten_steps_move_alike_however_they_are_cut(model: Path, method: str, tmp_path: Path) -> None:
    if method == "dpo":
        data = write_pairs(tmp_path / "rows.jsonl", count=80)
    else:
        data = write_completions(tmp_path / "rows.jsonl", count=80, labelled=method == "kto")
    words = ["--max_steps", 10, "--router_aux_loss_coef", 1.0, "--model_name_or_path", model]
    for name, max_tokens in (("one", 100_000), ("many", 40)):
        cut = ["--max_tokens_per_micro_batch", max_tokens]
        run_burnish(*stage_job(method, data, tmp_path / name, *words, *cut))
    start = load_file(model / "model.safetensors")
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "many"))
    apart = sum((one[name] - two[name]).square().sum() for name in one)
    moved = sum((one[name] - start[name]).square().sum() for name in one)
    assert float((apart / moved) ** 0.5) < SAME_UPDATE


def test_the_models_own_weight_is_the_default_and_its_gradient_reaches_the_router(model: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    run_burnish(*_experts_job(model, data, tmp_path / "own", "--max_steps", 1))
    own = AutoModelForCausalLM.from_pretrained(model).config.router_aux_loss_coef
    record = read_metrics(tmp_path / "own")[0]
    assert own > 0
    assert record["loss"] == pytest.approx(0.693147 + own * record["aux_loss"], rel=1e-5)
    words = ["--max_steps", 8, "--router_aux_loss_coef", 20, "--gradient_checkpointing"]
    run_burnish(*_experts_job(model, data, tmp_path / "strong", *words))
    losses = [record["aux_loss"] for record in read_metrics(tmp_path / "strong") if "aux_loss" in record]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("adapter", [False, True], ids=["frozen copy", "adapter switched off"])
def test_the_reference_reads_no_router(
    model: Path, adapter: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the model's configuration asks for: only the policy's forward in training has experts to balance."""
    asking = tmp_path / "model"
    shutil.copytree(model, asking)
    config = json.loads((asking / "config.json").read_text())
    (asking / "config.json").write_text(json.dumps({**config, "output_router_logits": True}))
    asked: dict[str, list[bool]] = {"policy": [], "reference": []}
    of_scorer, of_reference = Scorer._decoder_inputs, CachedReference.score

    def noted(scorer: Scorer, batch: Any) -> dict[str, Any]:
        inputs = of_scorer(scorer, batch)
        asked[who[-1]].append(inputs["output_router_logits"])
        return inputs

    def scored(reference: CachedReference, *words: Any, **named: Any) -> Any:
        who.append("reference")
        try:
            return of_reference(reference, *words, **named)
        finally:
            who.pop()

    who = ["policy"]
    monkeypatch.setattr(Scorer, "_decoder_inputs", noted)
    monkeypatch.setattr(CachedReference, "score", scored)
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    words = ["--max_steps", 2, "--router_aux_loss_coef", 0.5, "--self_check", False]
    words += ["--use_peft", "--lora_r", 2, "--lora_target_modules", "q_proj"] if adapter else []
    run_burnish(*_experts_job(asking, data, tmp_path / "run", *words))
    assert asked["policy"]
    assert all(asked["policy"])
    assert asked["reference"]
    assert not any(asked["reference"])


def test_a_weight_for_a_model_without_experts_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    run_burnish(*job(data, tmp_path / "run", "--router_aux_loss_coef", 0.1), expect=2)
    assert "is for mixture-of-experts models, and qwen2 is none" in capsys.readouterr().err
    run_burnish(*job(data, tmp_path / "off", "--router_aux_loss_coef", 0, "--max_steps", 1))
