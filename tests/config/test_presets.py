"""Presets: what they set is valid and, for those of a paper, what its scripts set."""

import pytest

from training.config import PRESETS, TrainConfig, preset_text, preset_values
from training.losses import resolved


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_made_of_valid_options(preset):
    assert isinstance(TrainConfig(**preset_values(preset)), TrainConfig)  # raises for a value out of range


def test_the_papers_presets_have_the_values_of_the_launch_scripts():
    sd15, sdxl = (TrainConfig(**preset_values(f"paper {name}")) for name in ("SD 1.5", "SDXL"))
    for config in (sd15, sdxl):
        assert (config.objective, config.steps, config.beta, config.rank) == ("alignguard", 2000, 5000.0, 4)
        rows = config.batch_size * config.grad_accumulation * 2  # a pair is two rows of theirs
        assert (rows, config.caption_dropout) == (16, 0.2)
    assert (sd15.learning_rate, sd15.warmup_steps, sd15.max_grad_norm) == (1.6e-4, 500, 1.0)
    assert (sdxl.learning_rate, sdxl.warmup_steps, sdxl.max_grad_norm) == (1e-5, 0, 0.0)


def test_duos_preset_has_the_values_of_its_nudity_script():
    duo = resolved(TrainConfig(**preset_values("DUO SD 1.4")))
    assert (duo.objective, duo.prompts, duo.targets) == ("duo", "empty", "self-attention")
    assert (duo.rank, duo.alpha, duo.weight_decay, duo.max_grad_norm) == (32, 0, 1e-2, 1.0)  # alpha = rank
    assert (duo.steps, duo.batch_size * duo.grad_accumulation) == (1000, 4)  # a pair on each of four GPUs
    assert (duo.lr_schedule, duo.warmup_steps, duo.beta) == ("constant", 0, 500.0)
    assert duo.learning_rate == pytest.approx(3e-4 * 100 / duo.beta)
    assert duo.preserve_weight == 1e6 * duo.beta / 100


@pytest.mark.parametrize("preset", ["paper SD 1.5", "paper SDXL", "DUO SD 1.4"])
def test_a_papers_preset_switches_off_what_the_paper_does_not_have(preset):
    others = {"bank": 8, "validation": 0.2, "patience": 2, "buckets": True, "anchor_weight": 0.5}
    others |= {"pair_weighting": "star", "row_dropout": 0.5}
    config = TrainConfig(**{**others, **preset_values(preset)})
    assert (config.bank, config.validation, config.patience, config.buckets) == (0, 0.0, 0, False)
    assert config.pair_weighting == "none"
    assert resolved(config).anchor_weight == resolved(config).row_dropout == 0


def test_custom_sets_nothing_and_an_unknown_name_is_refused():
    assert preset_values("custom") == {}
    assert preset_text("custom") == ""
    assert preset_text("quick") == "preset quick: steps 60, batch_size 4, grad_accumulation 1"
    with pytest.raises(ValueError, match="preset must be one of custom, paper SD 1.5, .*got 'slow'"):
        preset_values("slow")
