"""What burnish makes of each setting of TRL's that it does not share, in one table.

docs/trl.md is made from it, and a test holds it against the full list of TRL's settings.
"""

from __future__ import annotations

from burnish.trl_flags.data import DATA
from burnish.trl_flags.former import FORMER
from burnish.trl_flags.kinds import Answer, NotNeeded, Refused, Same, Table, Translated
from burnish.trl_flags.launch import ACCELERATE, LAUNCH
from burnish.trl_flags.model import MODEL
from burnish.trl_flags.records import RECORDS
from burnish.trl_flags.training import TRAINING

TRL_FLAGS: dict[str, Answer] = {**MODEL, **DATA, **TRAINING, **RECORDS, **LAUNCH, **ACCELERATE, **FORMER}

__all__ = [
    "ACCELERATE",
    "FORMER",
    "TRL_FLAGS",
    "Answer",
    "NotNeeded",
    "Refused",
    "Same",
    "Table",
    "Translated",
]
