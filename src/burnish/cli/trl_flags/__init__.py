"""What burnish makes of each setting of TRL's that it does not share, in one table."""

from __future__ import annotations

from burnish.cli.trl_flags.kinds import Answer, NotNeeded, Refused, Same, Table, Translated

TRL_FLAGS: dict[str, Answer] = {}

__all__ = ["TRL_FLAGS", "Answer", "NotNeeded", "Refused", "Same", "Table", "Translated"]
