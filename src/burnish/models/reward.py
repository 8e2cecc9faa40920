"""Reward models: a causal model with a scalar head, as transformers' AutoModelForSequenceClassification has it.

The reward of a completion is what the head gives at the last token of prompt plus completion that is not padding: the
position that AutoModelForSequenceClassification pools. Where the padding token is also the end-of-text token, that is
the token before it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from burnish.batching.layout import MicroBatch
from burnish.errors import ModelError
from burnish.models.adapters import load_adapter
from burnish.models.folder import check_model_folder, is_adapter_folder
from burnish.models.hub import Hub, resolve_model_path
from burnish.models.load import base_of_adapter, check_finite, disable_dropout
from burnish.models.quiet import quiet_transformers
from burnish.models.settings import ModelSettings
from burnish.scoring.scorer import HeadPath, Scorer, unwrap_adapter
from burnish.scoring.scores import CompletionScores

HEAD = "score.weight"


def load_reward_model(
    settings: ModelSettings, *, hub: Hub = "huggingface", pad_id: int, needs_head: bool = False
) -> nn.Module:
    """Load a causal model with a fresh scalar head, or a reward model with its own, on the CPU in float32.

    Args:
        settings: model_name_or_path, revision, attention kernel, trust and dropout are used. A folder with an adapter
            gives its base with the adapter and its head, trainable.
        hub: where ids are looked up.
        pad_id: token of padding, which pooling skips; written into the model's config.
        needs_head: refuse a model whose head would be fresh: its rewards mean nothing.

    Raises:
        ModelError: no such model, one whose architecture has no scalar head, or weights that don't fit.
    """
    name = settings.model_name_or_path
    if name is None:
        raise ModelError("no model given: --model_name_or_path takes a local folder or a hub id")
    folder = resolve_model_path(name, hub, settings.model_revision, trust_remote_code=settings.trust_remote_code)
    if is_adapter_folder(folder):
        name, revision = base_of_adapter(folder)
        base: Any = load_reward_model(
            replace(settings, model_name_or_path=name, model_revision=revision), hub=hub, pad_id=pad_id
        )
        adapted = load_adapter(base, folder)
        check_finite(adapted, str(folder))
        return adapted.train()
    check_model_folder(folder, allows_reward_head=True)
    from transformers import AutoModelForSequenceClassification

    try:
        with quiet_transformers():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                str(folder),
                num_labels=1,
                dtype="float32",
                attn_implementation=settings.attn_implementation or "sdpa",
                use_safetensors=True,
                trust_remote_code=settings.trust_remote_code,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # whatever a damaged config or remote code raises
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"the model in {folder} can't be loaded with a scalar head: {cause}") from error
    missing = set(info["missing_keys"]) - {HEAD}
    surplus = {key for key in info["unexpected_keys"] if not key.startswith("lm_head.")}
    if missing or surplus or not hasattr(model, "score"):
        shown = ", ".join(sorted(missing | surplus)[:3]) or "no score layer"
        raise ModelError(f"the weights in {folder} don't fit a reward model: {shown}")
    if needs_head and HEAD in info["missing_keys"]:
        raise ModelError(f"the model in {folder} has no reward head; train one with burnish reward")
    model.config._name_or_path = model.name_or_path = str(folder) if Path(name).expanduser().is_dir() else name
    model.config.pad_token_id = model.config.get_text_config().pad_token_id = pad_id
    check_finite(model, str(folder))
    if settings.disable_dropout:
        disable_dropout(model)
    return model.train()


class RewardScorer(Scorer):
    """Gives each completion's reward instead of its log-probability."""

    def forward(self, batch: MicroBatch) -> CompletionScores:
        """Rewards of a micro-batch; with HeadPath.WHOLE those of the model's own forward, rows of one completion."""
        model: Any = unwrap_adapter(self.model)
        if self.head_path is HeadPath.WHOLE:
            rewards = model(**self._decoder_inputs(batch)).logits.squeeze(-1)
            return _rewards_alone(rewards.float())
        ends, _ = self._hidden_at(self._decoder_inputs(batch), batch.ends)
        return _rewards_alone(model.score(ends).squeeze(-1).float())


def _rewards_alone(rewards: Tensor) -> CompletionScores:
    nothing = rewards.new_zeros(0)
    return CompletionScores(token_logps=nothing, logps=nothing, mean_logit_sums=nothing, rewards=rewards)
