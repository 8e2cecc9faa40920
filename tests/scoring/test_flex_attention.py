"""Flex attention sees what the tree mask sees, and computes what sdpa and eager attention compute.

Here its kernel runs on the CPU, uncompiled: torch's refusal of gradients on the CPU and transformers' compilation are
taken out, and nothing else.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from torch.nn.attention.flex_attention import create_mask
from transformers import AutoModelForCausalLM, PreTrainedModel, masking_utils
from transformers.integrations import flex_attention as transformers_flex

from builders import CONFIGS, build_groups, gradients, relative_difference
from burnish.batching.layout import PADDING, lay_out
from burnish.device.attention import BURNISH_FLEX, FLEX, check_attention, check_flex_attention
from burnish.device.pick import Device
from burnish.errors import ConfigError
from burnish.models.adapters import add_adapter
from burnish.models.estimate import estimate_memory
from burnish.models.settings import AdapterSettings
from burnish.scoring import flex_attention, scorer
from burnish.scoring.architecture import layers_of
from burnish.scoring.flex_attention import BLOCK, tree_block_mask
from burnish.scoring.masks import tree_mask
from burnish.scoring.scorer import Scorer
from burnish.scoring.self_check import choose_scoring
from jobs import POLICY, job, write_pairs
from runs import run_burnish

NAMES = ["qwen2", "qwen3", "llama", "mistral-window", "gemma2"]
TOLERANCE = 1e-5
Segments = tuple[list[int], int]
"""Lengths of prompt and completions in a row, and its padding."""
rows_of_segments = st.lists(
    st.tuples(st.lists(st.integers(0, 200), min_size=1, max_size=5), st.integers(0, 150)), min_size=1, max_size=3
)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flex attention on the CPU, with gradients."""
    compiled = lambda *_: lambda: torch_flex.flex_attention  # noqa: E731
    monkeypatch.setattr(transformers_flex, "WrappedFlexAttention", compiled)
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    create: Any = vars(masking_utils)["create_block_mask"]

    def plain(*words: Any, _compile: bool, **others: Any) -> Any:
        return create(*words, **others)

    monkeypatch.setattr(masking_utils, "create_block_mask", plain)


def _build(name: str, attention: str, **changes: Any) -> PreTrainedModel:
    """The same random model whatever its attention, with heads that the kernel takes."""
    config = copy.deepcopy(CONFIGS[name])
    config.update({"hidden_size": 64, "head_dim": 16, **changes})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
    return model.train()


def _other(name: str) -> str:
    """What flex attention is compared with: sdpa drops soft caps."""
    return "eager" if getattr(CONFIGS[name], "attn_logit_softcapping", None) else "sdpa"


def _run(model: Any, *, shared: bool = True, k: int = 3, **layout: Any) -> tuple[Tensor, Tensor]:
    scores = Scorer(model)(lay_out(build_groups(7, k=k), pad_id=0, shared=shared, **layout))
    (scores.logps * torch.linspace(-1, 1, len(scores.logps))).sum().backward()
    return scores.token_logps.detach(), gradients(model)


def _assert_equal(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert (found[0] - expected[0]).abs().max() < TOLERANCE * expected[0].abs().max()
    assert relative_difference(found[1], expected[1]) < TOLERANCE


def _ids(rows: list[Segments]) -> tuple[Tensor, Tensor]:
    length = max(1, *(sum(lengths) + padding for lengths, padding in rows))
    segments, positions = torch.full((len(rows), length), PADDING), torch.zeros(len(rows), length, dtype=torch.long)
    for row, (lengths, _) in enumerate(rows):
        start = 0
        for number, count in enumerate(lengths):
            segments[row, start : start + count] = number
            positions[row, start : start + count] = torch.arange(count) + (lengths[0] if number else 0)
            start += count
    return segments, positions


@settings(max_examples=60, deadline=None)
@given(rows_of_segments, st.none() | st.integers(1, 300))
def test_the_block_mask_is_the_tree_mask(rows: list[Segments], window: int | None) -> None:
    segments, positions = _ids(rows)
    count, length = segments.shape
    dense = tree_mask(segments, positions, window=window)
    mask = tree_block_mask(segments, positions, window=window)
    assert tuple(mask.shape) == (count, 1, length, length)
    assert torch.equal(create_mask(mask.mask_mod, count, 1, length, length, device="cpu"), dense)
    blocks = -(-length // BLOCK)
    padded = torch.nn.functional.pad(dense, (0, blocks * BLOCK - length) * 2)
    tiles = padded.view(count, 1, blocks, BLOCK, blocks, BLOCK)
    some, every = tiles.amax(dim=(3, 5)), tiles.amin(dim=(3, 5))
    assert torch.equal(_chosen(mask.kv_num_blocks, mask.kv_indices), some & ~every)
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_indices is not None
    assert torch.equal(_chosen(mask.full_kv_num_blocks, mask.full_kv_indices), every)


def _chosen(count: Tensor, numbers: Tensor) -> Tensor:
    """(rows, 1, blocks, blocks) bool of what a kernel visits."""
    visited = torch.arange(numbers.shape[-1]) < count[..., None]
    return torch.zeros(numbers.shape, dtype=torch.bool).scatter(-1, numbers.long(), visited)


@pytest.mark.parametrize("shared", [True, False], ids=["tree rows", "rows of one completion"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("uncompiled")
def test_values_and_gradients_are_those_of_the_dense_mask(name: str, shared: bool) -> None:
    model = _build(name, FLEX)
    found = _run(model, shared=shared)
    assert model.config._attn_implementation == BURNISH_FLEX
    _assert_equal(found, _run(_build(name, _other(name)), shared=shared))


@pytest.mark.usefixtures("uncompiled")
def test_several_examples_in_a_row_are_those_of_the_dense_mask() -> None:
    layout: dict[str, Any] = {"k": 1, "row_sizes": [2, 4]}
    _assert_equal(_run(_build("llama", FLEX), **layout), _run(_build("llama", "sdpa"), **layout))


@pytest.mark.usefixtures("uncompiled")
def test_adapters_and_recomputed_activations_change_nothing() -> None:
    def build(attention: str) -> Any:
        model: Any = add_adapter(_build("qwen2", attention), AdapterSettings(lora_target_modules=["all-linear"]))
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(0, 0.1)
        return model

    expected = _run(build("sdpa"))
    _assert_equal(_run(build(FLEX)), expected)
    recomputing = build(FLEX)
    recomputing.activation_checkpointing_enable({"use_reentrant": False})
    _assert_equal(_run(recomputing), expected)


@pytest.mark.usefixtures("uncompiled")
def test_under_autocast_all_three_come_in_one_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[torch.dtype]] = []
    plain = transformers_flex.flex_attention_forward

    def watched(module: Any, query: Tensor, key: Tensor, value: Tensor, *others: Any, **words: Any) -> Any:
        seen.append({query.dtype, key.dtype, value.dtype})
        return plain(module, query, key, value, *others, **words)

    monkeypatch.setattr(transformers_flex, "flex_attention_forward", watched)
    with torch.autocast("cpu", torch.bfloat16):
        logps, _ = _run(_build("qwen3", FLEX))
    assert seen
    assert all(len(dtypes) == 1 for dtypes in seen)
    assert logps.isfinite().all()


@pytest.mark.usefixtures("uncompiled")
def test_one_mask_serves_all_layers_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    windows: list[int | None] = []

    def counted(*ids: Tensor, window: int | None) -> Any:
        windows.append(window)
        return tree_block_mask(*ids, window=window)

    monkeypatch.setattr(scorer, "tree_block_mask", counted)
    _run(_build("gemma2", FLEX))
    assert sorted(windows, key=str) == [6, None]


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", NAMES)
def test_the_self_check_agrees_with_separate_rows(name: str) -> None:
    choice = choose_scoring(Scorer(_build(name, FLEX)).eval(), build_groups(0), pad_id=0)
    assert (choice.shared, choice.packed) == (True, False)


@pytest.mark.usefixtures("uncompiled")
def test_the_self_check_separates_rows_where_the_mask_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def causal(segments: Tensor, positions: Tensor, window: int | None) -> Any:
        return lambda row, head, query, key: (query >= key) & (row >= 0)

    monkeypatch.setattr(flex_attention, "_rule", causal)
    choice = choose_scoring(Scorer(_build("llama", FLEX)).eval(), build_groups(0), pad_id=0)
    assert not choice.shared
    assert "sharing a prompt changes log-probabilities" in choice.reason


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_size": 32, "head_dim": 8}, "heads of 8 are too small for its kernel, which takes 16 and more"),
        ({"attention_dropout": 0.1}, "no dropout of attention weights"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Scorer(_build("llama", FLEX, **changes))
    assert "leave it out to compute with sdpa" in str(caught.value)


def test_attention_sinks_are_refused() -> None:
    model = _build("llama", FLEX)
    layers_of(model)[0].get_submodule("self_attn").register_parameter("sinks", torch.nn.Parameter(torch.zeros(4)))
    with pytest.raises(ConfigError, match="attention sinks"):
        Scorer(model)


def _device(kind: Any) -> Device:
    return Device(kind, torch.device("cpu"), "for the test")


@pytest.mark.parametrize(
    ("kind", "cure"), [("cpu", "leave it out: the CPU already attends"), ("npu", "leave it out: its compiled kernel")]
)
def test_other_devices_refuse_it_in_one_line(kind: str, cure: str) -> None:
    for attention in (FLEX, BURNISH_FLEX):
        with pytest.raises(ConfigError, match=cure) as caught:
            check_flex_attention(attention, _device(kind))
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=cure):
        check_attention(_build("llama", FLEX), _device(kind), "model")
    check_flex_attention("sdpa", _device(kind), deterministic=True)
    check_flex_attention(None, _device(kind))


@pytest.mark.parametrize("command", ["dpo", "score"])
def test_a_command_refuses_it_before_a_model_is_loaded(
    command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    flags = ["--attn_implementation", FLEX]
    words = {
        "dpo": job(data, tmp_path / "run", "--device", "cpu", *flags),
        "score": ["score", POLICY, data, tmp_path / "scored.jsonl", *flags],
    }[command]
    run_burnish(*words, expect=2)
    assert "flex_attention is for CUDA; leave it out: the CPU already attends" in capfd.readouterr().err


def test_cuda_takes_it_unless_the_run_is_to_repeat_itself() -> None:
    check_flex_attention(FLEX, _device("cuda"))
    with pytest.raises(ConfigError, match="--deterministic"):
        check_flex_attention(FLEX, _device("cuda"), deterministic=True)


def test_no_mask_is_reckoned_in_the_estimate() -> None:
    flex, sdpa = (_build("llama", attention) for attention in (FLEX, "sdpa"))
    tokens = 512
    spared = estimate_memory(sdpa, tokens=tokens).activations - estimate_memory(flex, tokens=tokens).activations
    assert spared == CONFIGS["llama"].num_hidden_layers * tokens * tokens * torch.float32.itemsize
