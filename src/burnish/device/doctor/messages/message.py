"""A sentence in both languages, with its cure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class Message:
    """What was found and what to do, with `{names}` for values; the cure is empty where nothing needs doing."""

    en: str
    zh: str
    cure_en: str = ""
    cure_zh: str = ""

    def text(self, language: Language) -> str:
        """The finding."""
        return self.zh if language == "zh" else self.en

    def cure(self, language: Language) -> str:
        """The cure."""
        return self.cure_zh if language == "zh" else self.cure_en
