"""Row forms: each row is recognised by itself, by its columns and by what stands in them."""

from burnish.data.formats.recognise import FORMS_IN_WORDS, recognise

__all__ = ["FORMS_IN_WORDS", "recognise"]
