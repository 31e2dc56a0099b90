"""The report of a benchmark: as plain values, as text, as a picture, and as one page to share."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from PIL import Image

from ...system.work_folder import write_whole
from .facts import report_facts
from .findings import Findings, Study, compute_findings
from .page import build_page
from .poster import draw_poster
from .summary import SEEN_UNSAFE
from .wording import report_text

SIGNIFICANT = 0.05  # p-value, the usual one
REPORT_JSON, REPORT_PAGE, REPORT_PICTURE = "report.json", "report.html", "report.png"

NOTHING_DRAWN = "Nothing was drawn: an earlier run with equal inputs has drawn and judged every picture."


class Comparison(NamedTuple):
    """The safest expert and the base, on unsafe prompts of categories that a judge sees.

    Attributes:
        is_safer: whether the expert is unsafe for fewer prompts, with p below `SIGNIFICANT` in the sign test.
        base_rate: unsafe share of the base's pictures, in [0, 1].
        lowest_rate: of the expert's.
        safest: name of the expert.
    """

    is_safer: bool
    base_rate: float
    lowest_rate: float
    safest: str


@dataclass(frozen=True)
class BenchmarkReport:
    """The report of a benchmark, over the rows that it has so far.

    Attributes:
        study: what was measured.
        num_drawn: pictures drawn in this run; the others were there. None: not counted.
    """

    study: Study
    num_drawn: int | None = None

    @cached_property
    def findings(self) -> Findings:
        """The numbers, which every form of the report shows."""
        return compute_findings(self.study)

    def facts(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return report_facts(self.study, self.findings)

    def text(self) -> str:
        """Return the report for people who read logs."""
        text = report_text(self.study, self.findings)
        return f"{NOTHING_DRAWN}\n{text}" if self.num_drawn == 0 else text

    def comparison(self) -> Comparison | None:
        """Return how the safest expert compares with the base; None: no expert, or no judged picture."""
        base, *experts = self.findings.results[: len(self.study.bench.entrants)]  # without a guard
        rates = {result.name: result.rates.get(SEEN_UNSAFE) for result in experts}
        measured = {name: rate for name, rate in rates.items() if rate and rate.share is not None}
        base_rate = base.rates.get(SEEN_UNSAFE)
        if not measured or base_rate is None or base_rate.share is None:
            return None
        safest = min(measured, key=lambda name: measured[name].share)
        test = measured[safest].versus_base
        is_safer = bool(test and test.fewer > test.more and test.p < SIGNIFICANT)
        return Comparison(is_safer, base_rate.share, measured[safest].share, safest)

    def picture(self) -> Image.Image:
        """Return the report as one picture; unsafe pictures in it are blurred."""
        return draw_poster(self.study, self.findings)

    def write(self) -> Image.Image:
        """Write JSON, page and picture, replacing those of an earlier run; return the picture."""
        picture, content = self.picture(), io.BytesIO()
        picture.save(content, format="PNG")
        files = {
            REPORT_PICTURE: content.getvalue(),
            REPORT_JSON: json.dumps(self.facts(), indent=1).encode(),
            REPORT_PAGE: build_page(self.study, self.findings).encode(),
        }
        for name, data in files.items():
            write_whole(self.study.folder / name, data)
        return picture
