"""A prompt that is tokenised once for all its completions gives the ids of the whole texts."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, pre_tokenizers

from burnish.data.examples import Example
from burnish.data.splitting import PromptCutter
from burnish.data.tokenise import Encoded, ExampleEncoder

words = st.text(alphabet=st.sampled_from("ab 7\n\t é你🙂<|>im_startend"), max_size=25)
special = st.sampled_from(["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|im_start|><|im_end|>", "<|im_<|im_end|>"])
contents = st.lists(words | special, min_size=1, max_size=4).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(contents, min_size=3, max_size=3), style=st.sampled_from(["chatml", "headers"]))
def test_ids_of_parts_are_the_ids_of_the_whole(contents: list[str], style: str, request: Any) -> None:
    tokenizer = request.getfixturevalue(style)
    prompt, chosen, rejected = contents
    turns = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
    example = Example("preference", "test", [{"role": "user", "content": prompt}], list(turns))
    (encoded,) = ExampleEncoder(tokenizer).encode([example])
    assert isinstance(encoded, Encoded)
    for turn, ids in zip(turns, encoded.completion_ids, strict=True):
        text = tokenizer.apply_chat_template([*example.prompt, *turn], tokenize=False)
        assert encoded.prompt_ids + ids == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_prompts_are_cut_after_their_last_special_token(chatml: Any) -> None:
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert PromptCutter(chatml).cut(prompt, [prompt + "a", prompt + "b"]) == prompt.rindex("assistant")
    assert PromptCutter(chatml).cut(prompt, ["<|im_start|>system"]) == 0
    assert PromptCutter(chatml).cut("no marker", ["no marker"]) == 0


@pytest.mark.parametrize("spoil", ["metaspace", "strip", "overlap", "prefix space"])
def test_tokenizers_that_look_beyond_their_part_are_never_cut(spoil: str, chatml: Any) -> None:
    tokenizer = deepcopy(chatml)
    if spoil == "metaspace":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    elif spoil == "prefix space":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif spoil == "strip":
        tokenizer.add_tokens([AddedToken("<mask>", lstrip=True)])
    else:
        tokenizer.add_tokens([AddedToken("|><|", normalized=False)])
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert PromptCutter(tokenizer).cut(prompt, [prompt]) == 0
