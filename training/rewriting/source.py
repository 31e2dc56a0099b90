"""What a rewriter works from: what the person gave, of which each way uses its own part."""

from dataclasses import dataclass
from pathlib import Path

from .term_table import TermTable


@dataclass(frozen=True)
class RewriteSource:
    """What the person gave.

    Args:
        terms: their table; with the other ways it is what must not be left in a rewrite.
        paired_file: file or folder of prompts somebody rewrote before.
        endpoint: URL of a language model they run; empty is off.
        endpoint_model: name of the model there.
        allowed_host: a host beside this machine that they named by hand.
    """

    terms: TermTable | None = None
    paired_file: Path | None = None
    endpoint: str = ""
    endpoint_model: str = ""
    allowed_host: str = ""
