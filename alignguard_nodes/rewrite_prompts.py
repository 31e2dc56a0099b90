"""Node: Rewrite Prompts."""

from functools import partial
from typing import Any

from comfy_api.latest import io, ui

from ..training.config import RewriteConfig
from ..training.making.rewriting import (
    REWRITERS,
    NoRewriteError,
    RewriteSource,
    parse_terms,
    prompt_lines,
    rewrite_prompts,
)
from ..training.rules.categories import CATEGORIES, normalize_category
from . import host
from .files import entry_fingerprint, pairs_path
from .inputs import CATEGORY, checked, config_inputs, pair_places


class RewritePrompts(io.ComfyNode):
    """Rewrite unsafe prompts into safe ones, and keep those that pass every check."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardRewritePrompts",
            display_name="Rewrite Prompts",
            category=CATEGORY,
            search_aliases=["safe prompt", "paraphrase", "llm", "sanitize", "alignguard"],
            in_sight=("prompts", "category", "method", "table", "paired_file", "endpoint", "endpoint_model"),
            description="Rewrite unsafe prompts into safe ones, for Make Safety Pairs. Rewrites that fail a "
            "check are left out and counted; without any, what follows does not run.",
            inputs=[
                io.String.Input(
                    "prompts", default="", multiline=True, tooltip="The unsafe prompts, one per line."
                ),
                io.Combo.Input(
                    "category",
                    options=list(CATEGORIES),
                    tooltip="Category of the prompts; it is written with every pair.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(REWRITERS),
                    tooltip="table replaces your terms. paired_file looks up old rewrites. endpoint asks a "
                    "language model on this machine; reasoned asks it for risks, a rewrite and a check. "
                    "nearest carries over the change of the pair nearest in meaning.",
                ),
                io.String.Input(
                    "table",
                    default="",
                    multiline=True,
                    tooltip="Lines of term,replacement, or a JSON object. Whole words are replaced, the "
                    "longest first. With every method, a rewrite that still contains a term is rejected. "
                    "Without a table nothing checks that a rewrite is safe, and the report says so.",
                ),
                io.String.Input(
                    "paired_file",
                    default="",
                    optional=True,
                    tooltip="For paired_file and nearest, and examples for reasoned: path below ComfyUI's "
                    "input folder of CoProV2's CSV, Ring-A-Bell's CSV (prompt, prompt1), JSON lines with "
                    "unsafe_prompt and safe_prompt, or a pairs folder.",
                ),
                io.String.Input(
                    "endpoint",
                    default="",
                    optional=True,
                    tooltip="For endpoint and reasoned: the URL of an OpenAI-compatible server on this "
                    "machine, such as http://127.0.0.1:11434/v1. Other machines are refused. Empty opens no "
                    "connection.",
                ),
                io.String.Input(
                    "endpoint_model",
                    default="",
                    optional=True,
                    tooltip="For endpoint and reasoned: the name of the model on that server.",
                ),
                *config_inputs(RewriteConfig),
            ],
            outputs=[
                io.String.Output(
                    display_name="pairs_text",
                    tooltip="Unsafe and safe prompts, one JSON object per line, for prompts of Make Safety "
                    "Pairs.",
                ),
                io.String.Output(display_name="safe_prompts", tooltip="The safe prompts, one per line."),
                io.String.Output(
                    display_name="report",
                    tooltip="How many rewrites were accepted, and why the other lines were not.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        prompts: str | None,
        category: str | None,
        method: str | None,
        table: str | None,
        paired_file: str | None = "",
    ) -> bool | str:
        return checked(
            (normalize_category, category),
            (partial(pairs_path, pair_places()), paired_file or None),
            (lambda name: _check_method(name, table, paired_file), method),
            (prompt_lines, prompts),
        )

    @classmethod
    def fingerprint_inputs(cls, paired_file: str | None = None, **_: object) -> str:
        return entry_fingerprint(pairs_path(pair_places(), paired_file)) if paired_file else ""

    @classmethod
    def execute(
        cls,
        prompts: str,
        category: str,
        method: str,
        table: str,
        paired_file: str = "",
        endpoint: str = "",
        endpoint_model: str = "",
        **settings: Any,  # the options of RewriteConfig
    ) -> io.NodeOutput:
        source = RewriteSource(
            terms=parse_terms(table) if table.strip() else None,
            paired_file=pairs_path(pair_places(), paired_file) if paired_file else None,
            endpoint=endpoint,
            endpoint_model=endpoint_model,  # without allowed_host, because a graph may come from a stranger
        )
        try:
            result = rewrite_prompts(
                prompts,
                REWRITERS[method](source),
                RewriteConfig(**settings),
                terms=source.terms,
                categories=(normalize_category(category),),
                on_progress=host.progress(cls.hidden.unique_id),
            )
        except NoRewriteError as error:  # only what needs a rewrite stops, the rest of the queue goes on
            nothing, report = host.Blocked(f"Rewrite Prompts: {error}"), str(error)
            return io.NodeOutput(nothing, nothing, report, ui=ui.PreviewText(report))
        report = result.report()
        return io.NodeOutput(result.jsonl(), result.safe_prompts, report, ui=ui.PreviewText(report))


def _check_method(method: str, table: str | None, paired_file: str | None) -> None:
    """Check that a method has what it works with; None comes through a link. No endpoint is asked yet."""
    if method not in REWRITERS:
        raise ValueError(f"method must be one of {', '.join(REWRITERS)}, got {method!r}.")
    terms = parse_terms(table) if table and table.strip() else None
    lacks_file = method in ("paired_file", "nearest") and paired_file == ""
    if lacks_file or (method == "table" and table is not None):
        REWRITERS[method](RewriteSource(terms=terms))
