from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from burnish.data.settings import DataSettings
from burnish.models.adapters import add_adapter, reference_weights
from burnish.models.load import load_policy
from burnish.models.sampling import generate_samples
from burnish.models.settings import AdapterSettings
from burnish.models.tokenizer import load_tokenizer

Make = Callable[..., Any]
PROMPTS = [[1, 40, 41, 42, 43], [1, 50], [1, 60, 61, 62, 63, 64, 65, 66]]


@pytest.fixture
def model(golden: Path, settings_for: Make) -> Any:
    return load_policy(settings_for(golden))


@pytest.fixture
def tokenizer(golden: Path, settings_for: Make) -> Any:
    return load_tokenizer(settings_for(golden), DataSettings())


def by_hand(model: Any, tokenizer: Any, prompt: list[int], count: int) -> str:
    """Greedy decoding one token at a time, without cache, padding or batches."""
    ids = list(prompt)
    model.eval()
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    model.train()
    return tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_each_completion_is_the_likeliest_whatever_it_is_batched_with(
    batch_size: int, model: Any, tokenizer: Any
) -> None:
    expected = [by_hand(model, tokenizer, prompt, 12) for prompt in PROMPTS]
    assert generate_samples(model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=batch_size) == expected


def test_the_generation_config_neither_steers_nor_changes(model: Any, tokenizer: Any) -> None:
    expected = generate_samples(model, tokenizer, PROMPTS, max_new_tokens=8)
    own = model.generation_config
    own.update(do_sample=True, temperature=5.0, repetition_penalty=9.0, max_new_tokens=1)
    before = own.to_dict()
    assert generate_samples(model, tokenizer, PROMPTS, max_new_tokens=8) == expected
    assert model.generation_config is own
    assert own.to_dict() == before


def test_any_end_token_of_the_model_ends_the_completion(model: Any, tokenizer: Any) -> None:
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        first = int(model(input_ids=ids).logits[0, -1].argmax())
    model.generation_config.eos_token_id = [2, first]
    text = generate_samples(model, tokenizer, PROMPTS[:1], max_new_tokens=8)[0]
    assert text == tokenizer.decode([first], skip_special_tokens=True)


def test_training_is_not_disturbed(tiny_llama: Make, tokenizer: Any) -> None:
    model = tiny_llama(attention_dropout=0.5, vocab_size=512).train()
    model.lm_head.eval()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first = generate_samples(model, tokenizer, PROMPTS, max_new_tokens=4)
    assert torch.equal(torch.rand(3), expected)
    assert first == generate_samples(model, tokenizer, PROMPTS, max_new_tokens=4)
    assert [module.training for module in model.modules()] == modes


def test_the_mode_comes_back_after_an_error(model: Any, tokenizer: Any) -> None:
    own = model.generation_config
    with pytest.raises(IndexError):
        generate_samples(model, tokenizer, [[1, 5000]], max_new_tokens=4)
    assert model.training
    assert model.generation_config is own


def test_an_adapted_model_answers_with_its_adapter(model: Any, tokenizer: Any) -> None:
    base = generate_samples(model, tokenizer, PROMPTS, max_new_tokens=8)
    adapted = add_adapter(model, AdapterSettings(lora_target_modules=["all-linear"]))
    assert generate_samples(adapted, tokenizer, PROMPTS, max_new_tokens=8) == base
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3)
    assert generate_samples(adapted, tokenizer, PROMPTS, max_new_tokens=8) != base
    with reference_weights(adapted):
        assert generate_samples(adapted, tokenizer, PROMPTS, max_new_tokens=8) == base


def test_gradient_checkpointing_does_not_get_in_the_way(model: Any, tokenizer: Any) -> None:
    expected = generate_samples(model, tokenizer, PROMPTS, max_new_tokens=6)
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache = False
    assert generate_samples(model, tokenizer, PROMPTS, max_new_tokens=6) == expected
    assert model.config.use_cache is False


def test_no_prompts_give_no_samples(model: Any, tokenizer: Any) -> None:
    assert generate_samples(model, tokenizer, [], max_new_tokens=4) == []


def test_sampling_prints_nothing(model: Any, tokenizer: Any, capfd: pytest.CaptureFixture[str]) -> None:
    model.generation_config.update(temperature=0.1, top_p=0.2, top_k=3)
    generate_samples(model, tokenizer, PROMPTS, max_new_tokens=4)
    generate_samples(add_adapter(model, AdapterSettings()), tokenizer, PROMPTS, max_new_tokens=4)
    assert capfd.readouterr() == ("", "")
