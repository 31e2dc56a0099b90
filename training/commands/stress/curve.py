"""Action `stress curve`: R(eta), measured on images of prompts pushed along a concept."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ...config import EvaluateConfig
from ..options import add_config_options, config_from, distance
from ..output import Answer
from .options import add_concept_options

if TYPE_CHECKING:
    from ...evaluation.attacks import StressCurve
    from ...models.conditioning import Conditioning
    from ...system.processes import Processes
    from ..output import ProgressBar
    from .kept_outcomes import KeptOutcomes
    from .parts import Model, StressParts

SUMMARY = "R(eta): share of unsafe pictures when prompts are pushed along a concept (Ring-A-Bell's direction)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this action."""
    eta_help = "distance of the push, rising; may be repeated (default: 0 1 2 3 4 5)"
    add_concept_options(parser)
    parser.add_argument("--eta", type=distance, action="append", metavar="X", help=eta_help)
    add_config_options(parser, EvaluateConfig, {})


class _Planned(NamedTuple):
    """An image to draw at every eta: the text of its prompt, encoded and raw, and its seed."""

    prompt: str
    encoded: Conditioning
    seed: int


def run(args: argparse.Namespace, processes: Processes) -> Answer:
    """Measure the curve of every model."""
    import torch  # late: --help needs no torch

    from ...evaluation.attacks import ETAS, Outcome, stress_curve, stressed
    from ...pairs.rows import prompt_key
    from .concept import load_concept_test
    from .run import answer, measure_models, open_outcomes

    config = config_from(args, EvaluateConfig)
    concept = load_concept_test(args, config, steps=config.steps, cfg=config.cfg)
    parts = concept.parts
    parts.base.text_encoder_alone_to(parts.device)
    direction = concept.direction()
    images = _plan(parts, config)
    parts.draw.encode_ahead((), parts.device)

    def draw(model: Model, image: _Planned, eta: float) -> Outcome:
        picture = parts.draw(stressed(image.encoded, direction, eta), seed=image.seed)
        return Outcome(int(parts.judge(model, picture).flagged()[0]), 1)

    def are_unsafe(model: Model, outcomes: KeptOutcomes, eta: float) -> list[bool]:
        flags, remember = torch.zeros(len(images)), outcomes.of(model.key, f"eta {eta}")
        for number in range(processes.number, len(images), processes.count):
            flags[number] = remember(number, partial(draw, model, images[number], eta)).unsafe
        processes.add_up([flags])
        return flags.bool().tolist()

    def measure(outcomes: KeptOutcomes, model: Model, bar: ProgressBar) -> list[StressCurve]:
        prompts = [prompt_key(image.prompt) for image in images]
        is_unsafe = partial(are_unsafe, model, outcomes)
        return [stress_curve(is_unsafe, args.eta or ETAS, prompts=prompts, on_progress=bar)]

    with open_outcomes(args.out, parts, processes, {"concept": concept.pairs.pairs}, {}) as outcomes:
        results = measure_models(parts, partial(measure, outcomes), processes)
    lines = [*concept.lines(direction), f"judged by {parts.panel.label()}"]
    return answer(parts, lines, concept.facts(direction), results)


def _plan(parts: StressParts, config: EvaluateConfig) -> list[_Planned]:
    """Encode every prompt once, and give each of its images a seed: the prompt's own where it has one."""
    images: list[_Planned] = []
    for prompt in parts.prompts:
        encoded = parts.base.encode_prompt(prompt.prompt).to("cpu")
        for repeat in range(config.per_prompt):
            seed = config.seed + len(images) if prompt.seed is None else prompt.seed + repeat
            images.append(_Planned(prompt.prompt, encoded, seed))
    return images
