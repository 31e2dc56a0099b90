"""Write the safe half of prompts. To add a way: write its file, then add its line to `REWRITERS`.

A way is a function of a `RewriteSource` that returns a rewriter: a function of one prompt that returns its
safe half, or None where it has none. `rewrite_prompts` checks whatever it returns before it is used. The
order is the order of the widget: append, never reorder, never rename (saved graphs store the name).
"""

from .endpoint import EndpointError, endpoint_rewriter
from .paired_file import paired_rewriter
from .rewrite import Rewritten, rewrite_prompts
from .term_table import RewriteSource, TermTable, parse_terms, table_rewriter

__all__ = [
    "REWRITERS",
    "EndpointError",
    "RewriteSource",
    "Rewritten",
    "TermTable",
    "parse_terms",
    "rewrite_prompts",
]

REWRITERS = {
    "table": table_rewriter,
    "paired_file": paired_rewriter,
    "endpoint": endpoint_rewriter,
}
