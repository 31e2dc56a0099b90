"""DiffZOO's search over word substitutions on the mini model, beside the same number of random rewordings.

Both attack the base and the default merge of the seven shipped experts, drawn outside the server. The
substitution table is that of the mini world: second words of the icons, other colours, other grounds. The
figures show that the parts work together; they say nothing about Stable Diffusion.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

import merge_quality
from kept_trials import run_kept
from measurement import unsafe_group
from mini_lab import FOLDER, MiniLab, applied, code_hash
from training.config import AttackConfig, MergeConfig
from training.evaluation import Panel, make_judge
from training.evaluation.attacks import (
    AttackReport,
    Outcome,
    RandomRewordings,
    SubstitutionTable,
    worst_of_n,
    zeroth_order_attack,
)
from training.evaluation.prompt_sets import Prompt
from training.mini.build import version
from training.mini.pairs import make_draw
from training.mini.scenes import COLOURS, GROUNDS, SYNONYMS
from training.rules.categories import CATEGORIES

PROMPTS = 4  # per category, half of them with a wording that no pair uses
CONFIG = AttackConfig(
    rounds=2, directions=3, samples=1, validations=2
)  # 16 pictures; 1960 with the paper's settings
BASE, MERGED = "base", MergeConfig().method
FILES = (*merge_quality.FILES, Path(__file__))


def measure() -> dict:
    """Attack base and merged expert with search and baseline; a killed run continues where it stopped.

    Returns:
        Model and attack -> number of prompts, share of them with an unsafe picture and its 95 % interval,
        mean number of pictures per prompt, and its bound.
    """
    calls = [(row, category) for row in (BASE, MERGED) for category in CATEGORIES]
    file = FOLDER / f"mini-{version()}" / "trials" / f"word_attack-{code_hash(*FILES)[:16]}.jsonl"
    reports_of = {}
    for call, rows in tqdm(run_kept(trial, calls, file, here=True), total=len(calls), file=sys.stdout):
        reports_of[call] = [_report(*row) for row in rows]
        tqdm.write("\n".join([f"{call}:", *(report.report() for report in reports_of[call])]))
    return {
        f"{row}: {reports[0].attack}": figures_of(reports)
        for row in (BASE, MERGED)
        for reports in zip(*(reports_of[row, category] for category in CATEGORIES), strict=True)
    }


def trial(row: str, category: str) -> list[tuple]:
    """Attack with the prompts of a category; return the fields of the two reports, search and baseline."""
    lab = _lab()
    layers = _merged_layers() if row == MERGED else {}
    with applied(lab.unet, layers):
        reports = attack(lab, category)
    return [(report.attack, report.kind, report.outcomes, report.budget, report.judge) for report in reports]


def attack(lab: MiniLab, category: str) -> list[AttackReport]:
    """Attack the lab's UNet with the prompts of a category, by the search and by its baseline."""
    panel = Panel((make_judge("mini"),))
    draw = make_draw(lab.unet, lab.autoencoder, lab.embeds)
    prompts, table, look = prompts_of(category), words(), _look(draw, panel)
    return [
        zeroth_order_attack(prompts, table, look, CONFIG, judge=panel.label()),
        worst_of_n(prompts, table, look, RandomRewordings(CONFIG.budget), judge=panel.label()),
    ]


def prompts_of(category: str) -> list[Prompt]:
    """Return prompts that name the stand-in of a category, spread over scenes as in `merge_quality`."""
    texts = unsafe_group(category, PROMPTS).prompts
    return [Prompt(f"{category} {number}", text, (category,), None) for number, text in enumerate(texts)]


def words() -> SubstitutionTable:
    """Return the substitutes of the mini world: second words of icons, other colours, other grounds."""
    table = {icon: [second] for icon, second in SYNONYMS.items()}
    for names in (COLOURS, GROUNDS):
        table |= {name: [other for other in names if other != name] for name in names}
    return SubstitutionTable(table)


def _look(
    draw: Callable[[Sequence[str], Sequence[int]], Tensor], panel: Panel
) -> Callable[[Sequence[str], Sequence[int]], tuple[Tensor, Tensor]]:
    def look(texts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        verdict = panel.look((draw(texts, seeds) + 1) / 2)
        return verdict.score(), verdict.flagged()

    return look


def _report(
    attack: str, kind: str, outcomes: Sequence[Sequence[int]], budget: int, judge: str
) -> AttackReport:
    return AttackReport(attack, kind, tuple(Outcome(*values) for values in outcomes), budget, judge)


def figures_of(reports: Sequence[AttackReport]) -> dict[str, float]:
    """Return the figures of an attack over all categories."""
    first, *_ = reports
    outcomes = tuple(outcome for report in reports for outcome in report.outcomes)
    whole = AttackReport(first.attack, first.kind, outcomes, first.budget, first.judge)
    low, high = whole.interval
    return {
        "prompts": whole.drawn,
        "success": whole.rate,
        "low": low,
        "high": high,
        "pictures": whole.images / whole.drawn,
        "budget": whole.budget,
    }


@cache
def _merged_layers() -> dict:
    lab = _lab()
    return dict(merge_quality.merged(lab, lab.shipped_experts(), MERGED, 0, 0).layers)


@cache
def _lab() -> MiniLab:
    return MiniLab()
