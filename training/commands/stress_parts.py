"""What every action of `stress` works with: the models under test, who draws, who judges, and on what."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..config import EvaluateConfig
from ..evaluation import Panel
from ..evaluation.attacks import ConceptPairs, parse_concept_pairs, read_concept_pairs
from ..evaluation.benchmark.plan import BASE, expert_key
from ..evaluation.prompt_sets import Prompt, PromptSet, load_prompt_set
from ..experts.applied import applied_expert
from ..experts.expert import check_family, load_expert
from ..models.base_model import BaseModel, load_base
from ..models.diffusers_draw import DiffusersDraw
from ..rules.categories import normalize_categories
from ..rules.hard_rule import joins_minor_and_sexual
from ..system.tables import read_text_file
from .expert_names import expert_names
from .judges import chosen_panel, judge_facts
from .options import device_of


class Model(NamedTuple):
    """A model under test: its name, what names its weights, and what puts it in place while it lasts."""

    name: str
    key: str
    opened: Callable[[], AbstractContextManager[None]]


class Parts(NamedTuple):
    """What every action works with.

    Attributes:
        base: on its device for attacks, which encode new words between pictures; else where it was loaded.
        device: to compute on.
        models: the base, then every expert.
        draw: draws with whichever of them is in place.
        panel: who judges.
        found: the prompts.
        settings: what outcomes depend on besides prompts and models; plain values.
    """

    base: BaseModel
    device: torch.device
    models: Sequence[Model]
    draw: DiffusersDraw
    panel: Panel
    found: PromptSet
    settings: dict[str, Any]

    @property
    def prompts(self) -> Sequence[Prompt]:
        """The prompts, in the order of their numbers."""
        return self.found.prompts


def load_parts(args: argparse.Namespace, config: Any, *, steps: int, cfg: float) -> Parts:
    """Load everything.

    Args:
        args: of the command.
        config: options of the action; outcomes depend on them.
        steps: of sampling.
        cfg: of sampling.
    """
    EvaluateConfig(steps=steps, cfg=cfg)  # refuses what is out of its ranges, such as nan
    found = load_prompt_set(args.prompts, category=args.category, max_prompts=args.max_prompts)
    panel = chosen_panel(args, device_of(args.device))
    base = load_base(args.base)
    settings = {
        "action": args.action,
        "sampler": f"diffusers {args.scheduler}",
        "resolution": args.resolution,
        "judge": panel.label(),
        "steps": steps,
        "cfg": cfg,
        **asdict(config),
        **judge_facts(args),
    }
    if args.out:  # of the weights where they still are
        settings |= {"model": base.content_hash, "encoders": base.encoder_id}
    draw = DiffusersDraw(base, scheduler=args.scheduler, steps=steps, cfg=cfg, resolution=args.resolution)
    base.warn_of_long({each.prompt for each in found.prompts})
    device = device_of(args.device)
    if args.action != "curve":  # whose prompts are all encoded before the first picture
        base.to(device)
    return Parts(base, device, _models(args, base), draw, panel, found, settings)


def pushable(parts: Parts) -> tuple[Parts, str]:
    """Leave out prompts that must not be pushed along a concept, and say how many.

    Nobody says what the concept is, so the hard rule reads it as sexual: no prompt with a word for a minor,
    in it or in another column of its rows.
    """
    kept = tuple(
        each for each in parts.prompts if not joins_minor_and_sexual(("sexual",), each.prompt, *each.texts)
    )
    left_out = len(parts.prompts) - len(kept)
    if not kept:
        raise ValueError(f"no prompt can be used: all {left_out} hold a word for a minor.")
    found = replace(parts.found, prompts=kept)
    return parts._replace(found=found), f"{left_out} prompts with a word for a minor are not pushed"


def judgeable(parts: Parts) -> tuple[Parts, int]:
    """Leave out prompts of categories that no judge sees, and count them: not measured is not zero.

    A prompt stays if one of its categories is seen, and a neutral one always, as in a benchmark.
    """
    seen = parts.panel.categories
    kept = tuple(
        each for each in parts.prompts if not each.categories or any(name in seen for name in each.categories)
    )
    if not kept:
        names = ", ".join(normalize_categories([name for each in parts.prompts for name in each.categories]))
        raise ValueError(
            f"not measured: the prompts are of {names}, and the judges see only {', '.join(seen)}. "
            "Choose another --judge."
        )
    found = replace(parts.found, prompts=kept)
    return parts._replace(found=found), len(parts.prompts) - len(kept)


def concept_line(category: str | None, parts: Parts) -> str:
    """Say what --concept-category names, or that nothing does.

    Raises:
        ValueError: if no judge sees it.
    """
    if category is None:
        return "--concept-category is not given, so nobody checked that the judges see the concept"
    if category not in parts.panel.categories:
        raise ValueError(
            f"not measured: the concept is of {category}, and the judges see only "
            f"{', '.join(parts.panel.categories)}. Choose another --judge."
        )
    return f"the concept is of {category}"


def concept_pairs(path: Path) -> ConceptPairs:
    """Read the pairs of --concept."""
    return parse_concept_pairs(read_text_file(path)) if path.suffix == ".txt" else read_concept_pairs(path)


def fingerprint(texts: Any) -> str:
    """Return what tells texts, or tuples of them, apart, and from which none can be read."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _models(args: argparse.Namespace, base: BaseModel) -> list[Model]:
    """Return the base and every expert, all of them read before the first picture."""
    if not 0 <= args.strength <= 2:
        raise ValueError(f"--strength must be from 0 to 2, got {args.strength:g}.")
    models, names = [Model(base.name, BASE, nullcontext)], expert_names(args.expert)
    for path in args.expert:
        expert = load_expert(path)
        check_family(expert, base.family.name, base.family.text_width)
        key = expert_key(expert.content_hash, args.strength)
        opened = partial(applied_expert, base.unet, expert, args.strength)
        models.append(Model(names[path] + path.suffix, key, opened))
    return models
