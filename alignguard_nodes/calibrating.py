"""The calibration of a merge: a MODEL, its CLIP and prompts, as the statistics that a method asks for."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..training.config import MergeConfig
from ..training.experts.expert import check_family
from ..training.experts.low_rank import LowRank
from ..training.merging import (
    MERGE_METHODS,
    BaseNetwork,
    CalibrationInputs,
    CalibrationPrompts,
    Distilled,
    Members,
    Statistics,
    StatisticsStore,
    calibration_prompts,
    collect_statistics,
    distill,
    listed_prompts,
    needs_statistics,
    plain_methods,
)
from . import host


@dataclass
class Calibration:
    """A node's calibration inputs, used only if the merge asks for them.

    `notes` holds lines for the report.
    """

    model: object
    clip: object
    vae: object
    source: object  # safety pairs or text
    resolution: int
    config: MergeConfig
    on_progress: object
    notes: list[str] = field(default_factory=list)
    _inputs: CalibrationInputs | None = None

    def facts(self, is_needed: bool) -> dict[str, Any] | None:
        """Return what decides the statistics, as plain values; None if that cannot be told.

        Args:
            is_needed: whether the merge asks for statistics.
        """
        if not is_needed:
            return {}
        if self.model is None or self.clip is None or self.source is None:
            return None  # the merge says what is missing
        try:
            weights = host.drawing_facts(self.model, self.clip, self.vae, self.on_progress)
        except ValueError:  # a patch whose content cannot be read
            return None
        source = self.source
        if not isinstance(source, str):
            source = [source.content_hash, [pair.categories for pair in source.pairs]]
        return {**weights, "source": source, "resolution": self.resolution, "vae": self.vae is not None}

    def statistics(self, members: Members) -> Statistics:
        """Run the base model on the calibration prompts."""
        self._check_connected(len(members))
        prompts = self._prompts()
        for expert, _ in members:
            check_family(expert, *host.family_of(self.model))
        self._inputs = self._encoded_inputs(prompts)
        with self._network() as base:
            return collect_statistics(
                base,
                self._inputs,
                members,
                self.config,
                store=StatisticsStore(host.private_folder("cache")),
                on_progress=self.on_progress,
            )

    def distilled(self, members: Members, layers: Mapping[str, LowRank]) -> Distilled:
        """Train the merged layers on what the members predict; to be called after `statistics`."""
        with self._network() as base:
            return distill(base, self._inputs, members, layers, self.config, on_progress=self.on_progress)

    @contextmanager
    def _network(self) -> Iterator[BaseNetwork]:
        """Lend the base model."""
        # fp32, as on the command line: the choice of an expert must not depend on the host's rounding
        with host.outside_inference_mode(), host.borrowed_unet(self.model, "fp32") as borrowed:
            yield BaseNetwork(borrowed.unet, borrowed.schedule, borrowed.weights_hash)

    def _encoded_inputs(self, prompts: CalibrationPrompts) -> CalibrationInputs:
        family = host.check_trainable(self.model)
        encoded = host.encode_prompts(self.model, self.clip, prompts.prompts, family, self.on_progress)
        latents = None
        if self.vae is not None and prompts.pictures:
            latents = self._encoded(host.encoders(self.model, self.clip, self.vae, family), prompts)
        side = self.resolution // host.latent_step(family)
        shape = (family.latent_channels, side, side)
        return CalibrationInputs(encoded, shape, prompts.categories, latents, prompts.neutral)

    def _check_connected(self, num_members: int) -> None:
        sockets = {"model": self.model, "clip": self.clip, "calibration": self.source}
        missing = [name for name, value in sockets.items() if value is None]
        refuse_uncalibrated(self.config.method, num_members, missing)

    def _prompts(self) -> CalibrationPrompts:
        from ..training.pairs.prompts import parse_prompts

        if isinstance(self.source, str):
            parsed = parse_prompts(self.source)
            if parsed.num_dropped:  # safety pairs were filtered when they were loaded
                self.notes.append(f"calibration lines dropped by the rule on minors: {parsed.num_dropped}")
            return listed_prompts(parsed, self.config)
        neutral = [(sample.prompt, sample.image) for sample in self.source.neutral]
        return calibration_prompts(self.source.pairs, self.config, neutral)

    def _encoded(self, encoders: host.Encoders, prompts: CalibrationPrompts) -> list:
        from ..training.pairs.encode import encode_pictures

        return encode_pictures(
            prompts.pictures,
            encoders,
            resolution=self.resolution,
            cache_dir=host.private_folder("cache"),
            on_progress=self.on_progress,
        )


def refuse_uncalibrated(method: str, num_members: int, missing: Sequence[str]) -> None:
    """Check that a merge has what it compares the experts on.

    Args:
        method: name of the merge method.
        num_members: experts that take part, or the fewest that surely do.
        missing: sockets for calibration that are not connected.

    Raises:
        ValueError: if the method is unknown, or needs one of these sockets.
    """
    if method not in MERGE_METHODS:
        raise ValueError(f"method must be one of {', '.join(MERGE_METHODS)}, got {method!r}.")
    if missing and needs_statistics(method, num_members):
        raise ValueError(
            f"{method} compares the experts on the base model, so it needs {', '.join(missing)} connected "
            f"too. Connect it, or set method to one of {plain_methods()}."
        )
