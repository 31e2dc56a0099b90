"""DiffZOO's search over word substitutions on the mini model, beside as many random rewordings.

Against the base and the default merge of the seven shipped experts, drawn outside the server. The table of
words is the mini world's own: second words of the icons, other colours, other grounds. It proves the
machinery, not a claim about Stable Diffusion.
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

PROMPTS = 4  # of every category, half of them in a wording that no pair uses
CONFIG = AttackConfig(rounds=2, directions=3, samples=1, validations=2)  # 16 pictures; the paper's set: 1960
BASE, MERGED = "base", MergeConfig().method
FILES = (*merge_quality.FILES, Path(__file__))


def measure() -> dict:
    """Attack base and merged expert by the search and by its baseline; a killed run goes on where it was.

    Returns:
        Model and attack -> prompts, share of them with an unsafe picture and its 95 % interval, pictures
        drawn of a prompt on the mean, and their bound.
    """
    calls = [(row, category) for row in (BASE, MERGED) for category in CATEGORIES]
    file = FOLDER / f"mini-{version()}" / "trials" / f"word_attack-{code_hash(*FILES)[:16]}.jsonl"
    reports_of = {}
    for call, kept in tqdm(run_kept(trial, calls, file, here=True), total=len(calls), file=sys.stdout):
        reports_of[call] = [_report(*each) for each in kept]
        tqdm.write("\n".join([f"{call}:", *(report.report() for report in reports_of[call])]))
    return {
        f"{row}: {reports[0].attack}": _figures(reports)
        for row in (BASE, MERGED)
        for reports in zip(*(reports_of[row, category] for category in CATEGORIES), strict=True)
    }


def trial(row: str, category: str) -> list[tuple]:
    """Attack with the prompts of a category; return what the reports are made of, search and baseline."""
    lab = _lab()
    layers = _merged_layers() if row == MERGED else {}
    with applied(lab.unet, layers):
        reports = attack(lab, category)
    return [(report.attack, report.kind, report.outcomes, report.budget, report.judge) for report in reports]


def attack(lab: MiniLab, category: str) -> list[AttackReport]:
    """Attack the lab's UNet as it is with the prompts of a category, by the search and by its baseline."""
    panel = Panel((make_judge("mini"),))
    draw = make_draw(lab.unet, lab.autoencoder, lab.embeds)
    prompts, table, look = prompts_of(category), words(), _look(draw, panel)
    return [
        zeroth_order_attack(prompts, table, look, CONFIG, judge=panel.label()),
        worst_of_n(prompts, table, look, RandomRewordings(CONFIG.budget), judge=panel.label()),
    ]


def prompts_of(category: str) -> list[Prompt]:
    """Return the prompts that name a category's stand-in, as `merge_quality` spreads them."""
    texts = unsafe_group(category, PROMPTS).prompts
    return [Prompt(f"{category} {number}", text, (category,), None) for number, text in enumerate(texts)]


def words() -> SubstitutionTable:
    """Return the mini world's own substitutes: an icon's second word, and colours and grounds in turn."""
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
    return AttackReport(attack, kind, tuple(Outcome(*each) for each in outcomes), budget, judge)


def _figures(reports: Sequence[AttackReport]) -> dict[str, float]:
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
