"""Secrets of the environment, kept out of whatever is printed or written.

A secret is the value of an environment variable whose name says so (…TOKEN, …KEY, …SECRET, …PASSWORD), whatever looks
like a token of a known maker, and the password inside an address.
"""

from __future__ import annotations

import os
import re
from typing import Any

MASK = "***"
SHORTEST = 8
"""Shorter values are no secrets: replacing them would garble words."""
_SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|API_?KEY|ACCESS_?KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(_KEY|_ID)?$", re.IGNORECASE
)
_KNOWN_TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|ms-[0-9a-f-]{32,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16})"
)
_PASSWORD_IN_ADDRESS = re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)")


def redact(text: str) -> str:
    """Return the text with every secret replaced by ***."""
    for secret in _environment_secrets():
        text = text.replace(secret, MASK)
    if "://" in text:
        text = _PASSWORD_IN_ADDRESS.sub(MASK, text)
    return _KNOWN_TOKENS.sub(MASK, text)


def redact_values(value: Any) -> Any:
    """Return plain values (dicts, lists, texts) with every secret in their texts replaced."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_values(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redact_values(entry) for entry in value)
    return value


def _environment_secrets() -> list[str]:
    """Return the secrets of the environment, the longest first, so that none is cut by another."""
    values = {value for name, value in os.environ.items() if len(value) >= SHORTEST and _SECRET_NAME.search(name)}
    return sorted(values, key=len, reverse=True)
