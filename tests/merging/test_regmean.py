"""regmean on single layers, against the normal equations on dense matrices in fp64."""

import pytest
import torch

from builders import expert_of, random_layer, seeded
from training.config import MergeConfig
from training.experts.low_rank import LowRank
from training.merging.members import Members
from training.merging.regmean import MOST, ResponseCollector, regmean

D_OUT, D_IN = 14, 10
NAME, PROMPT = (
    f"mid_block.attentions.0.transformer_blocks.0.{layer}" for layer in ("attn1.to_q", "attn2.to_k")
)
CATEGORIES = ("hate", "violence")


def random_part(seed, rank=2):
    return random_layer(seeded(seed), D_OUT, D_IN, rank)


def random_inputs(seed, axes=slice(None), tokens=3):
    """Return inputs with anisotropic second moments that only use some axes, (4, tokens, D_IN)."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.zeros(4, tokens, D_IN)
    inputs[..., axes] = torch.randn(4, tokens, D_IN, generator=generator)[..., axes]
    return inputs * torch.linspace(0.5, 2, D_IN)


PARTS = [random_part(0), random_part(1, rank=3)]
INPUTS = {"hate": random_inputs(10), "violence": random_inputs(11), "": random_inputs(12)}


def collect(parts=PARTS, inputs=INPUTS, split=1, modules=(NAME,), **options):
    """Return the collector after all inputs, which come in `split` batches."""
    members = Members.of([expert_of({}, name) for name in CATEGORIES])
    tags = [name for name in inputs for _ in range(4)]
    config = MergeConfig(method="regmean", **options)
    collector = ResponseCollector(members, dict.fromkeys(modules, parts), tags, config)
    rows = [(name, row) for name, stacked in inputs.items() for row in stacked]
    size = len(rows) // split
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        collector.begin(0, [name for name, _ in batch])
        stacked = torch.stack([row for _, row in batch])
        for module in modules:
            collector.add(module, stacked)
    return collector


def dense(update):
    return update.up.double() @ update.down.double()


def moments(inputs, **options):
    """Return [G_hate, G_violence] and M, in fp64."""
    config = MergeConfig(**options)
    mean = {name: torch.einsum("btd,bte->de", x.double(), x.double()) / 12 for name, x in inputs.items()}
    total = mean["hate"] + mean["violence"] + config.neutral_weight * mean.get("", 0)
    ridge = config.ridge * total.trace() / D_IN * torch.eye(D_IN, dtype=torch.float64)
    return [mean["hate"], mean["violence"]], total + ridge


@pytest.mark.parametrize("module", [NAME, PROMPT])
@pytest.mark.parametrize("options", [{}, {"neutral_weight": 0.0}, {"neutral_weight": 3.0, "ridge": 0.5}])
def test_regmean_solves_the_normal_equations_and_keeps_the_sum_of_the_ranks(options, module):
    merged = regmean(PARTS, statistics=collect(modules=(module,), **options).layers()[module]).update
    by_expert, total = moments(INPUTS, **options)
    pairs = list(zip(PARTS, by_expert, strict=True))
    shares = [dense(part) @ moment @ total.inverse() for part, moment in pairs]
    answers = [torch.trace(sum(shares) @ moment @ dense(part).T) for part, moment in pairs]
    wanted = [torch.trace(dense(part) @ moment @ dense(part).T) for part, moment in pairs]
    scales = [float(most / answer) for most, answer in zip(wanted, answers, strict=True)]
    expected = sum(min(MOST, max(1, scale)) * share for scale, share in zip(scales, shares, strict=True))
    torch.testing.assert_close(dense(merged), expected, rtol=1e-4, atol=1e-5)  # sums in fp32
    assert merged.rank == 5


def test_an_expert_that_other_inputs_weaken_is_scaled_up_but_never_above_its_own_answer():
    together = {name: random_inputs(1) for name in (*CATEGORIES, "")}
    statistics = collect(inputs=together, neutral_weight=1.0, ridge=1e-4).layers()[NAME]
    weakened = regmean(PARTS, statistics=statistics).update
    third = (dense(PARTS[0]) + dense(PARTS[1])) / 3  # the fit itself
    torch.testing.assert_close(dense(weakened), MOST * third, rtol=0, atol=2e-2)
    alone = {"hate": random_inputs(1), "violence": torch.zeros(4, 3, D_IN)}
    only = regmean(PARTS, statistics=collect(inputs=alone, ridge=0.02).layers()[NAME]).update
    x = alone["hate"].double()
    own, answer = x @ dense(PARTS[0]).T, x @ dense(only).T
    assert float((own * answer).sum()) == pytest.approx(float((own * own).sum()), rel=1e-3)


def test_regmean_answers_like_each_expert_if_inputs_share_no_direction():
    inputs = {"hate": random_inputs(1, slice(0, 5)), "violence": random_inputs(2, slice(5, 10))}
    merged = regmean(PARTS, statistics=collect(inputs=inputs, ridge=1e-4).layers()[NAME]).update
    for part, x in zip(PARTS, inputs.values(), strict=True):
        torch.testing.assert_close(
            x.double() @ dense(merged).T, x.double() @ dense(part).T, rtol=0, atol=0.02
        )


def test_regmean_scales_the_average_up_if_the_inputs_are_the_same():
    inputs = {"hate": random_inputs(1), "violence": random_inputs(1)}
    merged = regmean(PARTS, statistics=collect(inputs=inputs, ridge=1e-4).layers()[NAME]).update
    both = dense(PARTS[0]) + dense(PARTS[1])
    torch.testing.assert_close(dense(merged), MOST * both / 2, rtol=0, atol=2e-2)


def test_identical_experts_are_left_as_they_are_by_regmean_without_neutral_prompts():
    inputs = {name: INPUTS[name] for name in CATEGORIES}
    statistics = collect([PARTS[0], PARTS[0]], inputs, ridge=1e-4).layers()[NAME]
    merged = regmean([PARTS[0], PARTS[0]], statistics=statistics).update
    torch.testing.assert_close(dense(merged), dense(PARTS[0]), rtol=0, atol=2e-3)


def test_a_larger_ridge_leaves_more_of_the_base_model():
    sizes = [
        dense(
            regmean(PARTS, statistics=collect(modules=[PROMPT], ridge=ridge).layers()[PROMPT]).update
        ).norm()
        for ridge in (0.01, 0.3, 100.0)
    ]
    assert sizes[0] > sizes[1] > 20 * sizes[2]


def test_directions_that_no_input_has_stay_as_in_the_base_model():
    inputs = {name: random_inputs(seed, slice(0, 6)) for seed, name in enumerate((*CATEGORIES, ""))}
    merged = regmean(PARTS, statistics=collect(inputs=inputs).layers()[NAME]).update
    assert dense(merged)[:, 6:].abs().max() < 1e-6


def test_how_a_file_divides_scale_and_basis_between_its_factors_does_not_matter():
    turn = torch.tensor([[1000.0, 3.0], [0.0, 0.01]])
    turned = LowRank(PARTS[0].up @ torch.linalg.inv(turn), turn @ PARTS[0].down)
    one = regmean(PARTS, statistics=collect().layers()[NAME]).update
    other = regmean([turned, PARTS[1]], statistics=collect([turned, PARTS[1]]).layers()[NAME]).update
    torch.testing.assert_close(dense(one), dense(other), rtol=1e-3, atol=1e-3)


def test_a_layer_an_expert_lacks_stays_without_it():
    parts = [PARTS[0], LowRank(torch.zeros(D_OUT, 1), torch.zeros(1, D_IN))]
    merged = regmean(parts, statistics=collect(parts).layers()[NAME]).update
    assert torch.isfinite(dense(merged)).all()
    assert not merged.down[2].any()


def test_inputs_that_are_zero_keep_the_base_model():
    inputs = {name: torch.zeros(4, 3, D_IN) for name in (*CATEGORIES, "")}
    merged = regmean(PARTS, statistics=collect(inputs=inputs).layers()[NAME]).update
    assert not dense(merged).any()


def test_batches_do_not_matter_and_layers_of_one_input_share_its_moment(monkeypatch):
    first, cholesky, moments = collect().layers()[NAME].fitted, torch.linalg.cholesky, []

    def counted(moment):
        moments.append(moment)
        return cholesky(moment)

    monkeypatch.setattr(torch.linalg, "cholesky", counted)
    split = collect(split=6, modules=(NAME, "another")).layers()
    assert len(moments) == 1
    for whole, part, twin in zip(first, split[NAME].fitted, split["another"].fitted, strict=True):
        torch.testing.assert_close(whole, part, rtol=1e-4, atol=1e-5)
        assert torch.equal(part, twin)


def test_plain_text_and_experts_without_prompts_are_refused():
    members = Members.of([expert_of({}, "hate", name="hate.safetensors")])
    with pytest.raises(ValueError, match="Use safety pairs for calibration"):
        ResponseCollector(members, {}, None, MergeConfig(method="co_merge"))
    with pytest.raises(ValueError, match=r"hate.safetensors has no calibration prompt of its own.*violence"):
        ResponseCollector(members, {}, ["violence", ""], MergeConfig(method="co_merge"))
