"""What every action of `stress` works with: the models under test, sampler, judges and prompts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

import torch

from ...config import MAX_STRENGTH, EvaluateConfig
from ...evaluation import Panel, Verdict
from ...evaluation.benchmark.plan import BASE, expert_key
from ...evaluation.prompt_sets import Prompt, PromptSet, load_prompt_set
from ...experts.applied import applied_expert
from ...experts.expert import check_family, load_expert
from ...guards import Guard
from ...models.base_model import BaseModel, load_base
from ...models.diffusers_draw import DiffusersDraw
from ...rules.categories import normalize_categories
from ...system.picture_looks import look_of
from ..expert_names import expert_names
from ..guard import guard_facts, guard_in_front
from ..judges import chosen_panel, judge_facts
from ..options import device_of


class Model(NamedTuple):
    """A model under test.

    Attributes:
        name: for people.
        key: identifies its weights.
        opened: puts it in place while the context lasts.
        is_guarded: whether the guard stands in front of it.
    """

    name: str
    key: str
    opened: Callable[[], AbstractContextManager[None]]
    is_guarded: bool = False


class StressParts(NamedTuple):
    """What every action works with.

    Attributes:
        base: the base model, where it was loaded.
        device: to compute on.
        models: the base, then every expert; then each of them behind the guard, if there is one.
        draw: draws with the model that is in place.
        panel: the judges.
        prompt_set: the prompts.
        settings: what outcomes depend on besides prompts and models, as plain values.
        looks: model -> look of every picture that this process judged, see `look_of`.
        guard: stands in front of the guarded models; None: there is none.
    """

    base: BaseModel
    device: torch.device
    models: Sequence[Model]
    draw: DiffusersDraw
    panel: Panel
    prompt_set: PromptSet
    settings: dict[str, Any]
    looks: dict[str, list[str]]
    guard: Guard | None = None

    @property
    def prompts(self) -> Sequence[Prompt]:
        """The prompts, in the order of their numbers."""
        return self.prompt_set.prompts

    def judge(self, model: Model, pictures: torch.Tensor) -> Verdict:
        """Judge pictures (n, 3, h, w) that a model drew, and remember how they look."""
        self.looks.setdefault(model.name, []).extend(map(look_of, pictures.split(1)))
        return self.panel.look(pictures)

    def with_prompts(self, prompts: Iterable[Prompt]) -> StressParts:
        """Return the same parts with other prompts."""
        return self._replace(prompt_set=replace(self.prompt_set, prompts=tuple(prompts)))


def load_parts(args: argparse.Namespace, config: Any, *, steps: int, cfg: float) -> StressParts:
    """Load base, experts, judges and prompts.

    Args:
        args: of the command.
        config: options of the action; outcomes depend on them.
        steps: sampling steps.
        cfg: guidance scale.

    Raises:
        ValueError: if a file or an option cannot be used.
    """
    EvaluateConfig(steps=steps, cfg=cfg)  # refuses values out of range, such as NaN
    prompt_set = load_prompt_set(args.prompts, category=args.category, max_prompts=args.max_prompts)
    device = device_of(args.device)
    panel = chosen_panel(args, device)
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
    if args.out:  # hashed before the weights move to the device
        settings |= {"model": base.content_hash, "encoders": base.encoder_id}
    draw = DiffusersDraw(base, scheduler=args.scheduler, steps=steps, cfg=cfg, resolution=args.resolution)
    base.warn_of_long({prompt.prompt for prompt in prompt_set.prompts})
    models, guard = _models(args, base), None
    if getattr(args, "guard", None):  # not every action has the option
        guard = guard_in_front(args, base, device)
        settings |= guard_facts(args, guard)
        models += [_behind(model, args.guard.name) for model in models]
    return StressParts(base, device, models, draw, panel, prompt_set, settings, {}, guard)


def _behind(model: Model, guard_name: str) -> Model:
    return Model(f"{model.name} behind {guard_name}", f"{model.key} behind the guard", model.opened, True)


def _models(args: argparse.Namespace, base: BaseModel) -> list[Model]:
    """Return the base and every expert; all files are read before the first image."""
    if not 0 <= args.strength <= MAX_STRENGTH:
        raise ValueError(f"--strength must be from 0 to {MAX_STRENGTH:g}, got {args.strength:g}.")
    models, names = [Model(base.name, BASE, nullcontext)], expert_names(args.expert)
    for path in args.expert:
        expert = load_expert(path, assumed_family=base.family.name)
        expert.check_whole()
        check_family(expert, base.family.name, base.family.text_width)
        key = expert_key(expert.content_hash, args.strength)
        opened = partial(applied_expert, base.unet, expert, args.strength)
        models.append(Model(names[path] + path.suffix, key, opened))
    return models


def judgeable(parts: StressParts) -> tuple[StressParts, int]:
    """Leave out prompts of categories that no judge sees, and count them: not measured is not zero.

    A prompt stays if a judge sees one of its categories; a neutral prompt always stays, as in a benchmark.

    Raises:
        ValueError: if no prompt is left.
    """
    covered = parts.panel.categories
    seen = [
        prompt
        for prompt in parts.prompts
        if not prompt.categories or any(name in covered for name in prompt.categories)
    ]
    if not seen:
        names = normalize_categories([name for prompt in parts.prompts for name in prompt.categories])
        raise ValueError(
            f"not measured: the prompts are of {', '.join(names)}, but the judges see only "
            f"{', '.join(covered)}. Choose another --judge."
        )
    return parts.with_prompts(seen), len(parts.prompts) - len(seen)
