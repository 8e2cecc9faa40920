"""Direct preference optimisation and its family: the settings.

Paper: Rafailov et al., 2305.18290. Differs from TRL in how the work is done, not in the update: the prompt is computed
once for both completions, and only counted positions meet the vocabulary. Which objective uses which setting stands in
objectives/table.py; docs/paper_index.md leads from paper to code.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from burnish.errors import ConfigError
from burnish.methods.config import MethodConfig
from burnish.models.settings import MovingReferenceSettings, ReferenceSettings, RouterSettings
from burnish.objectives.checks import check_settings, check_weights, choose, objective_name
from burnish.ranges import NOT_NEGATIVE, POSITIVE, Range, check_choices, check_ranges


@dataclass(kw_only=True)
class DPOSettings:
    """What is the method's own."""

    beta: float | None = None
    """Strength of the pull towards the reference, in 1/nats; > 0; default 0.1. simpo and alphapo need it given."""
    loss_type: list[str] = field(default_factory=lambda: ["sigmoid"])
    """One or several objectives: sigmoid, hinge, ipo, exo_pair, nca_pair, robust, bco_pair, sppo_hard, aot,
    aot_unpaired, apo_zero, apo_down, discopop, sft, sigmoid_norm, odpo, dpop, cal; without a reference simpo, cpo,
    orpo, alphapo; or your own as package.module:function."""
    loss_weights: list[float] | None = None
    """Weight of each objective in loss_type, ≥ 0; None weighs each 1."""
    shadow_losses: list[str] = field(default_factory=list)
    """Objectives that are only logged, as shadow/<name>, on the scores that there are anyway."""
    label_smoothing: float = 0.0
    """Share of pairs whose labels are taken to be flipped, in [0, 0.5): for sigmoid (cDPO), exo_pair, robust, aot,
    aot_unpaired, simpo, cpo."""
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = "reverse_kl"
    """Divergence from the reference: for sigmoid, sigmoid_norm, hinge, ipo, exo_pair, robust, discopop, sft."""
    f_alpha_divergence_coef: float = 0.5
    """Exponent a of alpha_divergence, in [-10, 10]; the paper's α is 1 - a."""
    ld_alpha: float | None = None
    """Weight of the tokens beyond the shorter completion's length (LD-DPO), in [0, 1]; None is off."""
    use_weighting: bool = False
    """Weigh each pair by how likely the policy finds it (WPO)."""
    discopop_tau: float = 0.05
    """Temperature of discopop's modulation; > 0."""
    dpop_lambda: float = 50.0
    """How strongly dpop keeps the chosen completion from becoming less likely; ≥ 0."""
    simpo_gamma: float = 0.5
    """Least difference of rewards that simpo and alphapo ask for; ≥ 0."""
    cpo_alpha: float = 1.0
    """Weight of cpo's likelihood of the chosen completion; ≥ 0."""
    orpo_nll_on_prompt: bool = False
    """Let orpo's likelihood count the prompt's tokens as well, as TRL's does."""
    alphapo_alpha: float = 0.25
    """Shape of alphapo's reward, in [-10, 10]; 0 is simpo's."""
    rpo_alpha: float | None = None
    """Weight of an sft term beside the others (the flag of earlier TRL); ≥ 0; the same as naming sft in loss_type."""
    reference_free: bool = False
    """Take the reference's log-probabilities for 0 and load no reference (the flag of earlier TRL)."""
    beta_final: float | None = None
    """beta at the end of the run, in 1/nats; > 0; None keeps it constant."""
    beta_schedule: Literal["linear", "cosine"] = "linear"
    """Shape of beta's way to beta_final."""
    beta_dpo_alpha: float | None = None
    """How strongly beta follows the step's mean reward margin (β-DPO; 0.6 in the paper); ≥ 0; None is off."""


@dataclass(kw_only=True)
class DPOConfig(DPOSettings, MovingReferenceSettings, ReferenceSettings, RouterSettings, MethodConfig):
    """All settings of `burnish dpo`, flat, by TRL's names."""

    method: ClassVar[str] = "dpo"

    def __post_init__(self) -> None:
        """Take a single name for a list of one, as TRL does, and raise ConfigError for what is not allowed."""
        for name in ("loss_type", "shadow_losses"):
            value = getattr(self, name)
            words = list(value) if isinstance(value, list | tuple) else [value]
            setattr(self, name, [_named(word) for word in words])
        self._add_likelihood()
        super().__post_init__()
        check_dpo_settings(self)
        self.beta = DEFAULT_BETA if self.beta is None else self.beta

    def _add_likelihood(self) -> None:
        """Write rpo_alpha as the sft term that it is."""
        if self.rpo_alpha is None:
            return
        check_ranges(self, {"rpo_alpha": NOT_NEGATIVE})
        if "sft" in self.loss_type:
            raise ConfigError("--rpo_alpha adds an sft term, and loss_type names one: keep one of them")
        if self.rpo_alpha > 0:
            self.loss_weights = [*(self.loss_weights or [1.0] * len(self.loss_type)), self.rpo_alpha]
            self.loss_type = [*self.loss_type, "sft"]
        self.rpo_alpha = None


def _named(word: Any) -> Any:
    """A function that was handed over, by its name; anything else as it is."""
    if not callable(word):
        return word
    from burnish.objectives.custom import name_given

    function: Any = word
    return name_given(function)


DEFAULT_BETA = 0.1

RANGES = {
    "beta": POSITIVE,
    "label_smoothing": Range(least=0, below=0.5),
    "ld_alpha": Range(least=0, most=1),
    "f_alpha_divergence_coef": Range(least=-10, most=10),
    "discopop_tau": POSITIVE,
    "dpop_lambda": NOT_NEGATIVE,
    "simpo_gamma": NOT_NEGATIVE,
    "cpo_alpha": NOT_NEGATIVE,
    "alphapo_alpha": Range(least=-10, most=10),
    "rpo_alpha": NOT_NEGATIVE,
    "beta_final": POSITIVE,
    "beta_dpo_alpha": NOT_NEGATIVE,
}

OBJECTIVE_SETTINGS = (
    "beta", "label_smoothing", "f_divergence_type", "f_alpha_divergence_coef", "ld_alpha", "use_weighting",
    "discopop_tau", "dpop_lambda", "simpo_gamma", "cpo_alpha", "orpo_nll_on_prompt", "alphapo_alpha",
)  # fmt: skip
"""Settings that objectives take, by the names of their arguments."""


def check_dpo_settings(settings: DPOSettings) -> None:
    """Raise ConfigError for what is out of range, unknown, missing, or used by none of the chosen objectives."""
    check_ranges(settings, RANGES)
    check_choices(settings, DPOSettings)
    check_settings(settings.loss_type, changed_settings(settings), shadows=settings.shadow_losses)
    check_weights(settings.loss_type, settings.loss_weights)
    _check_companions(settings)
    _check_reference(settings)
    if settings.reference_free and (getattr(settings, "sync_ref_model", False) or settings.beta_dpo_alpha is not None):
        raise ConfigError("--reference_free loads no reference: leave out --sync_ref_model and --beta_dpo_alpha")


def _check_reference(settings: DPOSettings) -> None:
    """Refuse what is said of a reference that nothing compares with, or that is not loaded."""
    compared = [facts for facts in choose(settings.loss_type).values() if not facts.is_likelihood]
    compares = any(facts.needs_reference for facts in compared)
    names = " and ".join(map(objective_name, settings.loss_type))
    for name in ("reference_free", "sync_ref_model", "beta_dpo_alpha"):
        if _is_given(settings, name) and not compares:
            raise ConfigError(f"--{name}: {names} compares with no reference; leave it out")
    for name in ("ref_model_name_or_path", "ref_dtype", "precompute_ref_log_probs"):
        if _is_given(settings, name) and settings.reference_free:
            raise ConfigError(f"--{name}: --reference_free loads no reference; leave one of the two out")
        if _is_given(settings, name) and compared and not compares:
            raise ConfigError(f"--{name}: {names} compares with no reference; leave it out")
    if settings.beta_final is not None and not compared:
        raise ConfigError(f"--beta_final: {names} has no beta; leave it out")


def _is_given(settings: DPOSettings, name: str) -> bool:
    return getattr(settings, name, None) not in (None, False)


def _check_companions(settings: DPOSettings) -> None:
    """Refuse settings that only act beside another one."""
    if settings.beta_schedule != DPOSettings.beta_schedule and settings.beta_final is None:
        raise ConfigError("--beta_schedule has no effect without --beta_final: give it, or leave both out")
    if settings.beta_final is not None and settings.beta_dpo_alpha is not None:
        raise ConfigError("--beta_final and --beta_dpo_alpha both move beta: keep one")


def changed_settings(settings: DPOSettings) -> dict[str, Any]:
    """Settings of objectives that differ from their defaults."""
    defaults = {entry.name: entry.default for entry in fields(DPOSettings)}
    values = {name: getattr(settings, name) for name in OBJECTIVE_SETTINGS}
    return {name: value for name, value in values.items() if value != defaults[name]}


def objective_values(settings: DPOSettings) -> dict[str, Any]:
    """Values of the settings that objectives take."""
    values = {name: getattr(settings, name) for name in OBJECTIVE_SETTINGS}
    return values | {"beta": DEFAULT_BETA if settings.beta is None else settings.beta}
