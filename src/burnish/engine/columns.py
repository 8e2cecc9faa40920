"""Optional columns of rows, and the methods that use them: what a method would ignore is refused by name."""

from __future__ import annotations

from burnish.data.store import GroupStore
from burnish.errors import ConfigError

USERS = {
    "margin": ("dpo", "reward"),
    "label_smoothing": ("dpo", "reward"),
    "token_weights": ("dpo",),
}
"""Methods that use a column, by its name in the store."""
_WORDS = {"token_weights": "token weights (chosen_token_weights, chosen_spans and the rejected ones)"}


def refuse_unused_columns(method: str, groups: GroupStore) -> None:
    """Refuse rows with a column that a method has no use for.

    Raises:
        ConfigError: names the column, who uses it, and what to do.
    """
    for column, users in USERS.items():
        if method not in users and groups.has(column):
            commands = " and ".join(f"burnish {user}" for user in users)
            raise ConfigError(
                f"the rows' {_WORDS.get(column, column)}: used by {commands}, and not by burnish {method}; "
                "leave the column out"
            )
