"""A merge with equal inputs is given from the disk, and nothing else is taken for one."""

import dataclasses

import pytest

from builders import expert_of, layers_of_shapes, seeded
from training.config import MergeConfig
from training.merging import merge_experts
from training.merging.finished_merges import FinishedMerges
from training.system.finished_runs import FinishedRuns

SHAPES = {"mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (32, 768)}


def random_expert(name, seed):
    return expert_of(layers_of_shapes(SHAPES, seeded(seed), 2), name, name=f"{name}.safetensors")


HATE, VIOLENCE = random_expert("hate", 1), random_expert("violence", 2)
CONFIG = MergeConfig(method="ties", output_rank=2)
CALIBRATION = {"model": "a hash"}


class Merger:
    """Merges as a node does, and counts the merges that were made."""

    def __init__(self, folder):
        self.runs, self.made = FinishedRuns(folder), 0

    def __call__(self, *experts, config=CONFIG, calibration=CALIBRATION):
        experts = experts or ((HATE, 1.0), (VIOLENCE, 0.5))

        def merge():
            self.made += 1
            members, strengths = zip(*experts, strict=True)
            merged = merge_experts(members, dataclasses.replace(config, method="ties"), strengths=strengths)
            return merged, f"report {self.made}"

        return FinishedMerges(self.runs, config, experts).merged(calibration, merge)


@pytest.fixture
def merger(tmp_path):
    return Merger(tmp_path / "finished")


def test_equal_inputs_give_the_same_expert_and_report_without_merging(merger):
    expert, text, is_reused = merger()
    again, text_again, is_reused_again = merger()
    assert (merger.made, is_reused, is_reused_again) == (1, False, True)
    assert (again.content_hash, again.name, text_again) == (expert.content_hash, expert.name, text)
    assert (again.categories, again.family) == (expert.categories, expert.family)
    assert expert.metadata.items() <= again.metadata.items()
    assert again.report() == expert.report()


@pytest.mark.parametrize(
    ("experts", "options"),
    [
        (((HATE, 1.0), (VIOLENCE, 1.0)), {}),
        (((HATE, 1.0), (random_expert("violence", 3), 0.5)), {}),
        (((HATE, 1.0), (dataclasses.replace(VIOLENCE, name="renamed"), 0.5)), {}),
        ((), {"config": dataclasses.replace(CONFIG, output_rank=1)}),
        ((), {"calibration": {"model": "another hash"}}),
        ((), {"calibration": None}),
    ],
    ids=["strength", "weights", "name of a member", "option", "calibration", "calibration unknown"],
)
def test_any_other_input_merges(merger, experts, options):
    merger()
    _, _, is_reused = merger(*experts, **options)
    assert (merger.made, is_reused) == (2, False)


def test_a_merge_that_broke_off_does_not_count(merger, tmp_path):
    merger()
    (record,) = (tmp_path / "finished").glob("*.json")
    record.unlink()  # it is written last
    merger()
    assert merger.made == 2
    merger()
    assert merger.made == 2


def test_a_merge_that_takes_no_time_is_not_kept(merger, tmp_path):
    plain = dataclasses.replace(CONFIG, output_rank=0)
    merger(config=plain)
    merger(config=plain)
    assert merger.made == 2
    assert not (tmp_path / "finished").exists()


def test_a_method_with_calibration_is_kept_at_every_rank(merger):
    calibrated = dataclasses.replace(CONFIG, method="regmean", output_rank=0)
    merger(config=calibrated)
    assert merger(config=calibrated)[2]
