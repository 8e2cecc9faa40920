"""Which tokens supervised tuning learns from: completions, assistant turns, or everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from burnish import SFTConfig
from burnish.data.groups import PromptGroup
from burnish.data.prepare import prepare_groups
from burnish.data.sources import rows_of
from burnish.demo import demo_paths
from burnish.errors import DataError

TALK = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
    {"role": "assistant", "content": "Four!"},
]
MARKED = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}{% else %}{{ message.content }}<|im_end|>"
    "{% endif %}\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(demo_paths().model)


def _prepare(tokenizer: PreTrainedTokenizerBase, row: dict[str, Any], folder: Path, **settings: Any) -> PromptGroup:
    return prepare_groups(rows_of([row]), tokenizer, SFTConfig(**settings), kind="sft", cache_dir=folder).groups[0]


def _counted(tokenizer: PreTrainedTokenizerBase, group: PromptGroup) -> str:
    return str(tokenizer.decode(group.completion_ids[0][group.completion_mask[0]]))


def _whole(tokenizer: PreTrainedTokenizerBase, group: PromptGroup) -> str:
    return str(tokenizer.decode([*group.prompt_ids, *group.completion_ids[0]]))


def test_a_conversation_counts_as_a_whole_but_for_its_first_token(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    group = _prepare(tokenizer, {"messages": TALK}, tmp_path)
    text = tokenizer.apply_chat_template(TALK, tokenize=False)
    assert _whole(tokenizer, group) == text
    assert len(group.prompt_ids) == 1
    assert group.completion_mask[0].all()


@pytest.mark.parametrize("template", [None, MARKED], ids=["borders of turns", "generation markers"])
def test_assistant_only_counts_what_the_assistant_says(
    template: str | None, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenizer.chat_template = template or tokenizer.chat_template
    group = _prepare(tokenizer, {"messages": TALK}, tmp_path, assistant_only_loss=True)
    counted = _counted(tokenizer, group)
    assert counted.replace("\n", "") == "Two.<|im_end|>Four!<|im_end|>"
    assert _whole(tokenizer, group) == tokenizer.apply_chat_template(TALK, tokenize=False)
    if template is not None:
        assert "\n" not in counted  # the markers leave the line break out


def test_markers_equal_those_of_transformers(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.chat_template = MARKED
    group = _prepare(tokenizer, {"messages": TALK}, tmp_path, assistant_only_loss=True)
    theirs: Any = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    ours = [False] * len(group.prompt_ids) + group.completion_mask[0].tolist()
    assert ours == [bool(bit) for bit in theirs["assistant_masks"]]


@pytest.mark.parametrize("completion_only", [None, True, False])
def test_a_completion_counts_alone_unless_the_prompt_is_asked_for(
    completion_only: bool | None, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    row = {"prompt": "One and", "completion": " two."}
    group = _prepare(tokenizer, row, tmp_path, completion_only_loss=completion_only)
    end = tokenizer.eos_token
    counted = _counted(tokenizer, group)
    assert (counted == f" two.{end}") == (completion_only is not False)
    assert _whole(tokenizer, group) == f"One and two.{end}"
    if completion_only is False:
        assert len(group.prompt_ids) == 1


def test_a_text_counts_as_a_whole_from_any_column(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    group = _prepare(tokenizer, {"words": "One, two, three."}, tmp_path, dataset_text_field="words")
    assert _whole(tokenizer, group) == f"One, two, three.{tokenizer.eos_token}"
    assert group.completion_mask[0].all()


@pytest.mark.parametrize(("mode", "kept"), [("keep_start", slice(None, 5)), ("keep_end", slice(-5, None))])
def test_a_long_text_keeps_its_start_or_its_end(
    mode: Any, kept: slice, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    text = "one two three four five six seven eight nine ten"
    group = _prepare(tokenizer, {"text": text}, tmp_path, max_length=5, truncation_mode=mode)
    ids = tokenizer(text + str(tokenizer.eos_token)).input_ids
    assert [*group.prompt_ids, *group.completion_ids[0]] == ids[kept]


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"text": "One."}, {"assistant_only_loss": True}, "assistant_only_loss needs turns, and the row is a text"),
        ({"text": "One."}, {"completion_only_loss": True}, "completion_only_loss needs a prompt"),
        ({"messages": TALK}, {"completion_only_loss": True}, "use assistant_only_loss"),
    ],
)
def test_a_border_that_a_row_lacks_is_an_error_with_the_cure(
    row: dict[str, Any],
    settings: dict[str, Any],
    message: str,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match=message):
        _prepare(tokenizer, row, tmp_path, **settings)


def test_the_prompts_assistant_turns_count_where_the_prompt_is_asked_for(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    row = {"prompt": TALK[:3], "completion": TALK[3:]}
    alone = _prepare(tokenizer, row, tmp_path, assistant_only_loss=True)
    both = _prepare(tokenizer, row, tmp_path, assistant_only_loss=True, completion_only_loss=False)
    assert "Two." not in _counted(tokenizer, alone)
    assert "Two." in _counted(tokenizer, both)
    assert _whole(tokenizer, alone) == _whole(tokenizer, both)
