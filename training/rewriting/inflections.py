"""English inflections of the words of a text, so that `gun` is found in `guns`, `knife` in `knives`."""

import re

_ENDINGS = (  # of the inflected word, and of its base form
    ("s", ""),
    ("es", ""),
    ("ies", "y"),
    ("ves", "f"),
    ("ves", "fe"),
    ("ed", ""),
    ("ed", "e"),
    ("ied", "y"),
    ("ing", ""),
    ("ing", "e"),
    ("", "s"),  # for a term that is written in the plural
    ("", "es"),
    ("y", "ies"),
    ("f", "ves"),
    ("fe", "ves"),
)
_DOUBLED = re.compile(r"\b(\w+([bdfgklmnprtvz]))\2(?:ed|ing)\b", re.IGNORECASE)


def other_forms(text: str) -> set[str]:
    """Return the text with one kind of ending exchanged in every word that has it, once per kind."""
    forms = {re.sub(rf"\b(\w\w+){old}\b", rf"\g<1>{new}", text, flags=re.I) for old, new in _ENDINGS}
    return {*forms, _DOUBLED.sub(r"\1", text)} - {text}
