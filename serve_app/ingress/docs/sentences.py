"""Docstrings, as the document tells them. Pure."""

import inspect
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Docstring:
    """What a docstring says.

    Attributes:
        sentence: its first.
        more: what follows that, but for its sections.
        raises: its section of that name, as it stands.
    """

    sentence: str
    more: str
    raises: str

    @classmethod
    def of(cls, thing: object) -> "Docstring":
        """Return the docstring of a function or class; empty if it has none."""
        told, _, raises = (inspect.getdoc(thing) or "").partition("\nRaises:\n")
        sentence, _, more = told.partition("\n\n")
        return cls(prose(sentence), prose(more), raises)


def prose(text: str) -> str:
    """Return a docstring's text as one line of Markdown."""
    return " ".join(text.replace("``", "`").split())
