"""The self-check sees what is wrong, and falls back to what is right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from builders import build_groups, build_model
from burnish.scoring.head import HeadShape
from burnish.scoring.scorer import HeadPath, Scorer
from burnish.scoring.self_check import choose_scoring


def test_a_known_architecture_shares_prompts() -> None:
    choice = choose_scoring(Scorer(build_model("qwen2")), build_groups(0), pad_id=0)
    assert choice.shared
    assert choice.head_path is HeadPath.GATHERED


def test_an_architecture_in_the_table_is_not_shared() -> None:
    scorer = Scorer(build_model("qwen2"))
    scorer.architecture = replace(scorer.architecture, unshareable="its layers are recurrent")
    choice = choose_scoring(scorer, build_groups(0), pad_id=0)
    assert not choice.shared
    assert choice.reason == "its layers are recurrent"


@pytest.mark.parametrize("name", ["mistral-window", "gemma2"])
def test_a_wrong_window_is_seen_and_rows_are_separated(name: str) -> None:
    scorer = Scorer(build_model(name))
    scorer.architecture = replace(scorer.architecture, window=1000)
    choice = choose_scoring(scorer, build_groups(0), pad_id=0)
    assert not choice.shared
    assert choice.head_path is HeadPath.GATHERED
    assert "sharing a prompt changes" in choice.reason


def test_a_head_that_is_not_understood_is_seen_and_all_logits_are_computed() -> None:
    scorer = Scorer(build_model("granite"))
    scorer.architecture = replace(scorer.architecture, head=HeadShape())
    choice = choose_scoring(scorer, build_groups(0), pad_id=0)
    assert not choice.shared
    assert choice.head_path is HeadPath.WHOLE


def test_nan_is_not_taken_for_agreement() -> None:
    model = build_model("llama")
    scorer = Scorer(model)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    assert not choose_scoring(scorer, build_groups(0), pad_id=0).shared


def test_without_the_check_the_table_decides() -> None:
    choice = choose_scoring(Scorer(build_model("qwen2")), build_groups(0), pad_id=0, check=False)
    assert choice.shared
    assert "not checked" in choice.reason


def test_where_all_is_well_two_passes_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[HeadPath] = []
    forward = Scorer.forward

    def counted(scorer: Scorer, batch: object) -> object:
        passes.append(scorer.head_path)
        return forward(scorer, batch)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Scorer, "forward", counted)
    assert choose_scoring(Scorer(build_model("llama")), build_groups(0), pad_id=0).packed
    assert passes == [HeadPath.WHOLE, HeadPath.GATHERED]
