"""Write the safe half of prompts. To add a method: write its file, then add its line to `REWRITERS`.

A method is a function that takes a `RewriteSource` and returns a rewriter: a function of one prompt that
returns its safe half, or None if it has none; it may raise `RejectedError` with a reason. `rewrite_prompts`
checks every result before it is used. The order is the order of the widget: append, never reorder, never
rename (saved graphs store the name).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..local_endpoint import EndpointError
from .endpoint import endpoint_rewriter
from .nearest import nearest_rewriter
from .paired_file import paired_rewriter
from .reasoned import reasoned_rewriter
from .rewrite import NoRewriteError, Rewritten, prompt_lines, rewrite_prompts
from .term_table import TermTable, parse_terms, table_rewriter

__all__ = [
    "REWRITERS",
    "EndpointError",
    "NoRewriteError",
    "RewriteSource",
    "Rewritten",
    "TermTable",
    "parse_terms",
    "prompt_lines",
    "rewrite_prompts",
]


@dataclass(frozen=True)
class RewriteSource:
    """What the methods rewrite from; each method reads its own fields.

    Args:
        terms: the person's table of terms. With every method, no rewrite may contain one of them.
        paired_file: file or folder of prompts that were rewritten before.
        endpoint: URL of a language model that the person runs; empty if there is none.
        endpoint_model: name of the model there.
        allowed_host: another host that the person allows the endpoint to be on.
    """

    terms: TermTable | None = None
    paired_file: Path | None = None
    endpoint: str = ""
    endpoint_model: str = ""
    allowed_host: str = ""


REWRITERS = {
    "table": table_rewriter,
    "paired_file": paired_rewriter,
    "endpoint": endpoint_rewriter,
    "nearest": nearest_rewriter,
    "reasoned": reasoned_rewriter,
}
