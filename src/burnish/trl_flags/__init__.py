"""What burnish makes of each setting of TRL's that it does not share, in one table for each method.

docs/trl.md is made from them, and a test holds them against the full lists of TRL's settings.
"""

from __future__ import annotations

from burnish.trl_flags.data import DATA
from burnish.trl_flags.former import FORMER, FORMER_LENGTHS, FORMER_PACKING, FORMER_PAIRED, FORMER_REFERENCE
from burnish.trl_flags.kinds import Answer, NotNeeded, Refused, Same, Table, Translated
from burnish.trl_flags.launch import ACCELERATE, LAUNCH
from burnish.trl_flags.model import MODEL
from burnish.trl_flags.paired import DPO
from burnish.trl_flags.records import RECORDS
from burnish.trl_flags.single import FORMER_SFT, KTO, REWARD, SFT
from burnish.trl_flags.training import TRAINING

_SHARED: dict[str, Answer] = {**MODEL, **DATA, **TRAINING, **RECORDS, **LAUNCH, **ACCELERATE}

FORMERS: dict[str, dict[str, Answer]] = {
    "dpo": {**FORMER, **FORMER_PACKING, **FORMER_REFERENCE, **FORMER_LENGTHS, **FORMER_PAIRED},
    "kto": {**FORMER, **FORMER_PACKING, **FORMER_REFERENCE, **FORMER_LENGTHS},
    "sft": {**FORMER, **FORMER_SFT},
    "reward": {**FORMER, **FORMER_PACKING},
}
"""Answers to settings of earlier versions, by method."""

TABLES: dict[str, dict[str, Answer]] = {
    method: {**_SHARED, **FORMERS[method], **own}
    for method, own in (("dpo", DPO), ("kto", KTO), ("sft", SFT), ("reward", REWARD))
}
"""All answers, by method. What a method's own table says wins over what all share."""

TRL_FLAGS: dict[str, Answer] = {**TABLES["reward"], **TABLES["sft"], **TABLES["kto"], **TABLES["dpo"]}
"""All answers, for commands of no one method."""


def table_of(config_type: type) -> Table:
    """The answers for a method's settings, by the `method` that they name; all answers where they name none."""
    return TABLES.get(getattr(config_type, "method", ""), TRL_FLAGS)


__all__ = [
    "ACCELERATE",
    "FORMERS",
    "TABLES",
    "TRL_FLAGS",
    "Answer",
    "NotNeeded",
    "Refused",
    "Same",
    "Table",
    "Translated",
    "table_of",
]
