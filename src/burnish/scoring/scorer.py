"""From a model and a micro-batch to scores: tree rows through the decoder, counted positions through the head."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from burnish.batching.layout import PADDING, MicroBatch, prompt_tokens, token_copies
from burnish.device.attention import BURNISH_FLEX
from burnish.device.fused.cross_entropy import takes_cross_entropy
from burnish.scoring.architecture import Architecture, decoder_of, describe_architecture
from burnish.scoring.flex_attention import tree_block_mask, use_flex_attention
from burnish.scoring.head import NO_EXTRAS, HeadExtras, TokenScores, score_tokens
from burnish.scoring.last_layer import KEPT, trim_last_layer
from burnish.scoring.masks import additive, tree_mask
from burnish.scoring.neftune import noisy_embeddings
from burnish.scoring.routing import experts_per_token, own_router_coefficient, sum_routing
from burnish.scoring.scores import CompletionScores, join_scores
from burnish.scoring.tree_attention import TreeRows, use_tree_attention


class HeadPath(Enum):
    """Where logits come from."""

    GATHERED = "gathered"
    """Only counted positions meet the vocabulary."""
    WHOLE = "whole"
    """The model's own forward gives all logits: for heads that are not understood."""


class Scorer(nn.Module):
    """Scores completions with one model.

    A module, so that wrappers which hook forward and backward (data-parallel, mixed precision) can wrap it.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        extras: HeadExtras = NO_EXTRAS,
        neftune_noise_alpha: float | None = None,
        head_path: HeadPath = HeadPath.GATHERED,
        scores_prompts: bool = False,
    ) -> None:
        """Wrap a model.

        Args:
            model: a causal language model, or a peft model around one.
            extras: what to give of each counted token besides.
            neftune_noise_alpha: scale of the noise on embeddings in training (scoring.neftune); None for none.
            head_path: where logits come from.
            scores_prompts: whether to give the log-probability of each prompt too.
        """
        super().__init__()
        self.model = model
        self.extras = extras
        self.neftune_noise_alpha = neftune_noise_alpha
        self.head_path = head_path
        self.scores_prompts = scores_prompts
        self.sums_routing = False
        """Whether to give what the balancing loss of a mixture-of-experts model needs."""
        self.keeping: Callable[[], AbstractContextManager[None]] = nullcontext
        """Makes a block around each forward pass, which says where its backward pass finds what it needs."""
        self.has_routers = own_router_coefficient(unwrap_adapter(model)) is not None
        use_flex_attention(unwrap_adapter(model))
        self.architecture: Architecture = describe_architecture(unwrap_adapter(model))
        self.trims_last_layer = trim_last_layer(decoder_of(unwrap_adapter(model)))
        """Whether the last layer is computed only where its output is used."""

    def __call__(self, batch: MicroBatch) -> Any:
        """Score a micro-batch, as `forward` says, with the hooks of wrappers around it."""
        with self.keeping():
            return super().__call__(batch)

    @property
    def model_type(self) -> str:
        config: Any = unwrap_adapter(self.model).config
        return config.model_type

    def forward(self, batch: MicroBatch) -> CompletionScores:
        """Score a micro-batch whose tensors are on the model's device.

        A packed row goes through tree attention; rows that hold several completions get a tree mask; rows of one
        completion get the model's own causal mask.
        """
        predictors, targets = batch.predictors, batch.targets
        prompts = prompt_tokens(batch) if self.scores_prompts else None
        if prompts is not None:
            predictors, targets = torch.cat([predictors, prompts[0]]), torch.cat([targets, prompts[1]])
        through = self._score_through_logits if self.head_path is HeadPath.WHOLE else self._score_gathered
        with self._noise(batch):
            tokens, outputs = through(self._decoder_inputs(batch), predictors, targets)
        prompt_logps = None
        if prompts is not None:
            prompt_logps, tokens = _split_prompts(tokens, prompts[2], batch)
        scores = join_scores(tokens.logps, tokens.mean_logits, batch)
        scores.entropies, scores.correct = tokens.entropies, tokens.correct
        scores.log_sum_squares, scores.prompt_logps = tokens.log_sum_squares, prompt_logps
        if tokens.log_normalizers is not None:
            scores.log_normalizers = tokens.log_normalizers
            scores.mean_logps = tokens.mean_logits - tokens.log_normalizers
        if self.sums_routing:
            top = experts_per_token(unwrap_adapter(self.model))
            scores.routing = sum_routing(outputs.router_logits, token_copies(batch), experts_per_token=top)
        return scores

    def generate(self, **words: Any) -> Tensor:
        """Transformers' generate of the model; through here, where its weights are spread over ranks."""
        plain: Any = unwrap_adapter(self.model)
        return plain.generate(**words)

    def _noise(self, batch: MicroBatch) -> AbstractContextManager[None]:
        if self.neftune_noise_alpha is None or not self.training:
            return nullcontext()
        return noisy_embeddings(unwrap_adapter(self.model), batch, self.neftune_noise_alpha)

    def _score_gathered(self, inputs: dict[str, Any], predictors: Tensor, targets: Tensor) -> tuple[TokenScores, Any]:
        """Scores of the targets, and what the decoder gave."""
        model = unwrap_adapter(self.model)
        gathered, outputs = self._hidden_at(inputs, predictors)
        head: Any = model.get_output_embeddings()  # pyright: ignore[reportCallIssue]
        scored = score_tokens(
            gathered.to(compute_dtype(gathered)),
            head.weight,
            getattr(head, "bias", None),
            targets,
            shape=self.architecture.head,
            extras=self.extras,
            fused=takes_cross_entropy(head, gathered),
        )
        return scored, outputs

    def _hidden_at(self, inputs: dict[str, Any], positions: Tensor) -> tuple[Tensor, Any]:
        """(positions, hidden size) last hidden states at flat indices into rows x length, and what the decoder gave."""
        trims = self.trims_last_layer and len(positions) < inputs["input_ids"].numel()
        outputs = decoder_of(unwrap_adapter(self.model))(**inputs, **({KEPT: positions} if trims else {}))
        hidden = outputs.last_hidden_state.flatten(0, 1)
        return hidden if trims else hidden.index_select(0, positions), outputs

    def _score_through_logits(
        self, inputs: dict[str, Any], predictors: Tensor, targets: Tensor
    ) -> tuple[TokenScores, Any]:
        outputs = unwrap_adapter(self.model)(**inputs)
        logits = outputs.logits
        gathered = logits.reshape(-1, logits.shape[-1]).index_select(0, predictors).float()
        log_probabilities = torch.log_softmax(gathered, dim=-1)
        logps = log_probabilities.gather(1, targets[:, None]).squeeze(1)
        detached = gathered.detach()
        means = gathered.mean(dim=1) if self.extras.normalizers else detached.mean(dim=1)
        extra = {
            "log_sum_squares": torch.logsumexp(2 * log_probabilities.detach(), dim=1)
            if self.extras.log_sum_squares
            else None,
            "log_normalizers": torch.logsumexp(gathered, dim=1) if self.extras.normalizers else None,
        }
        if not self.extras.token_metrics:
            return TokenScores(logps, means, None, None, **extra), outputs
        entropies = -(log_probabilities.detach().exp() * log_probabilities.detach()).sum(dim=1)
        target_logits = detached.gather(1, targets[:, None]).squeeze(1)
        correct = (target_logits >= detached.amax(dim=1)).float()
        return TokenScores(logps, means, entropies, correct, **extra), outputs

    def _decoder_inputs(self, batch: MicroBatch) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
        if batch.trees is None:
            inputs["attention_mask"] = self._attention_mask(batch)
        else:
            use_tree_attention(unwrap_adapter(self.model))
            inputs["tree_rows"] = TreeRows.of(batch.trees)
            # A mask of four axes is handed on as it is, where none at all would have one made of tokens x tokens.
            inputs["attention_mask"] = batch.input_ids.new_zeros((1, 1, 1, 1), dtype=torch.bool)
        if not self.architecture.unshareable:
            inputs["position_ids"] = batch.position_ids
        if self.has_routers:
            inputs["output_router_logits"] = self.sums_routing  # else a config may ask for logits that nobody reads
        return inputs

    def _attention_mask(self, batch: MicroBatch) -> Tensor | BlockMask | dict[str, Tensor | BlockMask]:
        if not batch.is_shared:
            return (batch.segment_ids != PADDING).long()
        masks = {kind: self._tree_mask(batch, kind) for kind in self.architecture.layer_types}
        return masks if self.architecture.mask_by_layer_type else next(iter(masks.values()))

    def _tree_mask(self, batch: MicroBatch, layer_type: str) -> Tensor | BlockMask:
        window = self.architecture.window if layer_type == "sliding_attention" else None
        attention = getattr(unwrap_adapter(self.model).config, "_attn_implementation", None)
        if attention == BURNISH_FLEX:
            return tree_block_mask(batch.segment_ids, batch.position_ids, window=window)
        mask = tree_mask(batch.segment_ids, batch.position_ids, window=window)
        return additive(mask, next(self.model.parameters()).dtype) if attention == "eager" else mask


def _split_prompts(tokens: TokenScores, slots: Tensor, batch: MicroBatch) -> tuple[Tensor, TokenScores]:
    """(groups,) log-probability of each prompt, and the scores of the completions' tokens that stand before them."""
    count = len(batch.targets)
    length = batch.input_ids.shape[1]
    table = tokens.logps.new_zeros(len(batch.groups) * length).index_copy(0, slots, tokens.logps[count:])
    rest = TokenScores._make(None if part is None else part[:count] for part in tokens)
    return table.view(-1, length).sum(dim=1), rest


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype that matrix products run in here: autocast's where it is on, else the tensor's own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def unwrap_adapter(model: nn.Module) -> nn.Module:
    """The transformers model inside a peft wrapper, adapters in place; any other model is itself."""
    inner = getattr(model, "get_base_model", None)
    return inner() if callable(inner) else model  # pyright: ignore[reportReturnType]
