"""Merging whole experts: inputs, refusals, and the metadata of the result."""

import json
import zlib
from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import save_file

from builders import expert_of, layers_of_shapes, seeded
from training.config import MergeConfig
from training.experts.expert import load_expert, save_expert
from training.experts.lora_keys import to_diffusers, to_kohya, to_peft
from training.experts.low_rank import LowRank
from training.merging import MERGE_METHODS, Distilled, Members, Statistics, merge_experts

Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
K = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
SHAPES = {Q: (32, 32), K: (32, 768)}


def random_expert(name, seed, *, rank=2, modules=(Q, K), family="sd15", **metadata):
    layers = layers_of_shapes({module: SHAPES[module] for module in modules}, seeded(seed), rank)
    return expert_of(layers, name, name=f"{name}.safetensors", family=family, metadata=metadata)


HATE, VIOLENCE, SEXUAL = (random_expert(n, s) for s, n in enumerate(("hate", "violence", "sexual")))


ENTRYWISE = ["magnitude_prune", "ties", "dare_linear", "dare_ties"]
FITTED = ["regmean", "distill"]
EXACT = [name for name in MERGE_METHODS if name not in ("svd", *ENTRYWISE)]
PLAIN = [name for name in EXACT if name not in FITTED]


def statistics_of(experts, **options):
    """Return statistics of experts as they were trained, on random inputs."""
    return collected(Members.of(experts), MergeConfig(**options))


def collected(members, config):
    """Collect statistics on random inputs, without a UNet; inputs of every category differ."""
    trained = members.at_strength_one()
    parts = {module: trained.parts(module) for module in members.shapes}
    categories = sorted({name for expert, _ in members for name in expert.categories}) + [""]
    collector = MERGE_METHODS[config.method].collector(members, parts, categories * 12, config)
    for number in range(12):
        collector.begin(number, categories)
        for module in parts:
            collector.add(module, inputs_of(number, categories, module))
    return Statistics(
        collector.layers(),
        members.content_hashes,
        config.normalize,
        "c" * 64,
        12 * len(categories),
        collector.kind,
    )


def inputs_of(number, categories, module):
    """Return inputs that depend on the category and on nothing else, (categories, 4, d_in)."""
    generators = [
        torch.Generator().manual_seed(zlib.crc32(f"{c}{module}{number}".encode())) for c in categories
    ]
    return torch.stack([torch.randn(4, SHAPES[module][1], generator=generator) for generator in generators])


def merge(*experts, method="co_merge", strengths=None, **options):
    config = MergeConfig(method=method, **options)
    return merge_experts(
        experts,
        config,
        strengths=strengths,
        calibrate=lambda members: collected(members, config),
        distilled=as_merged,
    )


def as_merged(_, layers):
    """Leave a merge as it is, because there is no UNet here; `test_distill` has one."""
    return Distilled(layers, 1.0, 0.0)


def merge_with(statistics, experts, config, strengths=None):
    """Merge with statistics that were collected before."""
    return merge_experts(
        experts, config, strengths=strengths, calibrate=lambda _: statistics, distilled=as_merged
    )


def deltas(expert):
    return {module: layer.up.double() @ layer.down.double() for module, layer in expert.layers.items()}


def assert_same_update(first, second, tolerance=1e-5):
    one, other = deltas(first), deltas(second)
    assert one.keys() == other.keys()
    for module in one:
        torch.testing.assert_close(one[module], other[module], rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_merging_one_expert_gives_that_expert(method):
    merged = merge_experts([HATE], MergeConfig(method=method))
    assert merged.content_hash == HATE.content_hash
    assert merged.categories == ("hate",)


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_strength_of_one_expert_scales_it(method):
    merged = merge_experts([HATE], MergeConfig(method=method), strengths=[0.5])
    for module, delta in deltas(HATE).items():
        assert torch.equal(deltas(merged)[module], 0.5 * delta)


@pytest.mark.parametrize("method", MERGE_METHODS)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_hot_strengths_give_that_expert(method, position):
    experts, strengths = [HATE, VIOLENCE, SEXUAL], [float(i == position) for i in range(3)]
    merged = merge_experts(experts, MergeConfig(method=method), strengths=strengths)
    assert merged.content_hash == experts[position].content_hash


WHOLE = {"density": 1.0}


@pytest.mark.parametrize(
    ("method", "options"), [("co_merge", {}), ("average", {}), ("ties", WHOLE), ("dare_ties", WHOLE)]
)
def test_identical_experts_change_nothing(method, options):
    twin = expert_of(HATE.layers, "violence", name="twin.safetensors")
    assert_same_update(merge(HATE, twin, method=method, **options), HATE, 1e-4)  # an SVD in fp32


def test_a_fit_of_identical_experts_answers_like_them_on_calibration_inputs():
    twin = expert_of(HATE.layers, "violence", name="twin.safetensors")
    merged = merge(HATE, twin, method="regmean", neutral_weight=0.0, ridge=1e-4)
    for module, delta in deltas(HATE).items():
        inputs = inputs_of(0, ["hate", "violence"], module).double()
        expected = inputs @ delta.T
        distance = (inputs @ deltas(merged)[module].T - expected).norm() / expected.norm()
        assert distance < 2e-3  # what the ridge takes away


@pytest.mark.parametrize(
    ("method", "options"),
    [("concat", {}), ("svd", {}), ("magnitude_prune", WHOLE), ("dare_linear", WHOLE)],
)
def test_methods_that_add_restore_an_expert_from_two_halves(method, options):
    twin = expert_of(HATE.layers, "violence", name="twin.safetensors")
    merged = merge(HATE, twin, method=method, strengths=[0.5, 0.5], **options)
    assert_same_update(merged, HATE, 1e-4)  # an SVD in fp32


@pytest.mark.parametrize("strengths", [(1.0, 1.0, 1.0), (0.5, 1.7, 1.0)])
@pytest.mark.parametrize("method", MERGE_METHODS)
def test_order_does_not_matter(method, strengths):
    one, two, three = strengths
    first = merge(HATE, VIOLENCE, SEXUAL, method=method, strengths=[one, two, three])
    second = merge(SEXUAL, HATE, VIOLENCE, method=method, strengths=[three, one, two])
    assert_same_update(first, second, 5e-5)


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_an_expert_at_strength_zero_takes_no_part(method):
    without = merge(HATE, SEXUAL, method=method)
    merged = merge(HATE, VIOLENCE, SEXUAL, method=method, strengths=[1, 0, 1])
    assert merged.content_hash == without.content_hash
    assert merged.categories == ("hate", "sexual")
    assert "violence" not in merged.metadata["alignguard.members"]


@pytest.mark.parametrize("method", PLAIN)
def test_a_layer_that_an_expert_lacks_counts_as_zero(method):
    only_q = random_expert("violence", 1, modules=(Q,))
    merged = merge(HATE, only_q, method=method)
    expected = deltas(HATE)[K] * (0.5 if method == "average" else 1)
    torch.testing.assert_close(deltas(merged)[K], expected, rtol=1e-6, atol=1e-6)
    assert merged.layers[K].rank == 2  # the zero part leaves no rank behind


@pytest.mark.parametrize(("method", "factor"), [("average", 1 / 3), ("concat", 1)])
def test_average_and_concat_are_the_dense_mean_and_sum(method, factor):
    experts = [HATE, random_expert("violence", 7, rank=5), SEXUAL]
    strengths = [1.0, 0.5, 2.0]
    merged = merge(*experts, method=method, strengths=strengths)
    for module in SHAPES:
        parts = [s * deltas(expert)[module] for s, expert in zip(strengths, experts, strict=True)]
        torch.testing.assert_close(deltas(merged)[module], factor * sum(parts), rtol=1e-5, atol=1e-5)
        assert merged.layers[module].rank == 9


def test_co_merge_takes_whole_rows_scaled_by_strength():
    merged = merge(HATE, VIOLENCE, strengths=[1.0, 0.5])
    for module in SHAPES:
        rows = torch.stack([deltas(HATE)[module], 0.5 * deltas(VIOLENCE)[module]])
        distance = (rows - deltas(merged)[module]).abs().amax(-1)  # (experts, d_out)
        assert distance.amin(0).max() == 0
        won = json.loads(merged.metadata["alignguard.winners"])[module]
        assert won == (distance == 0).sum(1).tolist()
        assert sum(won) == SHAPES[module][0]


@pytest.mark.parametrize("method", ENTRYWISE)
def test_a_layer_of_one_expert_alone_has_its_rank(method):
    only_q = random_expert("violence", 1, modules=(Q,))
    merged = merge(HATE, only_q, method=method, density=1.0)
    torch.testing.assert_close(deltas(merged)[K], deltas(HATE)[K], rtol=0, atol=1e-4)
    assert merged.layers[K].rank == 2


@pytest.mark.parametrize("method", ENTRYWISE)
def test_entrywise_methods_state_what_they_lose_at_the_rank_of_all_experts(method):
    merged = merge(HATE, VIOLENCE, method=method)
    assert {layer.rank for layer in merged.layers.values()} == {4}
    assert 0.2 < float(merged.metadata["alignguard.kept_energy"]) < 0.999
    assert "energy kept" in merged.report()


@pytest.mark.parametrize("method", ENTRYWISE)
def test_at_full_rank_and_density_entrywise_methods_are_their_dense_formulas(method):
    merged = merge(HATE, VIOLENCE, method=method, density=1.0, output_rank=32)
    for module in SHAPES:
        one, two = deltas(HATE)[module], deltas(VIOLENCE)[module]
        elected = (
            torch.where((one + two >= 0) == (one >= 0), one, 0),
            torch.where((one + two >= 0) == (two >= 0), two, 0),
        )
        agree = ((elected[0] != 0).int() + (elected[1] != 0).int()).clamp(min=1)
        expected = sum(elected) / agree if method.endswith("ties") else one + two
        torch.testing.assert_close(deltas(merged)[module], expected, rtol=0, atol=1e-4)  # an fp32 SVD
    assert "alignguard.kept_energy" not in merged.metadata


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_random_methods_repeat_with_their_seed_and_differ_with_another(method):
    first, again, other = (merge(HATE, VIOLENCE, method=method, seed=seed) for seed in (0, 0, 1))
    assert first.content_hash == again.content_hash != other.content_hash


def test_svd_has_the_rank_of_the_largest_expert_and_is_the_cut_sum():
    merged = merge(HATE, random_expert("violence", 7, rank=5), SEXUAL, method="svd")
    assert {layer.rank for layer in merged.layers.values()} == {5}
    cut = merge(HATE, random_expert("violence", 7, rank=5), SEXUAL, method="concat", output_rank=5)
    assert merged.content_hash == cut.content_hash
    assert merged.metadata["alignguard.kept_energy"] == cut.metadata["alignguard.kept_energy"]


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_experts_of_unequal_rank_and_layers_merge(method):
    merged = merge(HATE, random_expert("violence", 7, rank=5, modules=(Q,)), SEXUAL, method=method)
    assert merged.layers.keys() == SHAPES.keys()
    assert all(torch.isfinite(delta).all() and delta.any() for delta in deltas(merged).values())


@pytest.mark.parametrize("method", EXACT)
def test_output_rank_gives_the_best_approximation_and_states_the_energy_kept(method):
    exact = merge(HATE, VIOLENCE, method=method)
    cut = merge(HATE, VIOLENCE, method=method, output_rank=2)
    assert cut.rank == 2
    lost = total = 0.0
    for module, dense in deltas(exact).items():
        u, s, vh = torch.linalg.svd(dense, full_matrices=False)
        torch.testing.assert_close(deltas(cut)[module], u[:, :2] * s[:2] @ vh[:2], rtol=0, atol=1e-3)
        lost, total = lost + s[2:].square().sum(), total + s.square().sum()
    assert float(cut.metadata["alignguard.kept_energy"]) == pytest.approx(float(1 - lost / total), abs=1e-4)
    assert json.loads(cut.metadata["alignguard.kept_energy_per_layer"]).keys() == SHAPES.keys()
    assert "energy kept" in cut.report()
    assert "alignguard.kept_energy" not in exact.metadata


@pytest.mark.parametrize("method", EXACT)
def test_output_rank_of_the_full_rank_is_exact(method):
    exact = merge(HATE, VIOLENCE, method=method)
    assert merge(HATE, VIOLENCE, method=method, output_rank=4).content_hash == exact.content_hash


@pytest.mark.parametrize("method", [name for name in MERGE_METHODS if name not in ("average", *FITTED)])
def test_a_zero_expert_changes_nothing_but_means_and_fits(method):
    layers = {module: layer.scaled(0.0) for module, layer in HATE.layers.items()}
    zero = expert_of(layers, name="zero.safetensors")
    tolerance = 0 if method in EXACT else 1e-4  # fp32 SVDs
    assert_same_update(
        merge(HATE, zero, VIOLENCE, method=method), merge(HATE, VIOLENCE, method=method), tolerance
    )


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_every_key_dialect_merges_to_the_same_and_alpha_is_folded_once(tmp_path, method):
    save_file(
        {k: v.contiguous() for k, v in to_diffusers(HATE.layers).items()}, tmp_path / "diffusers.safetensors"
    )
    save_file({k: v.contiguous() for k, v in to_peft(HATE.layers).items()}, tmp_path / "peft.safetensors")
    halved = {}  # down is doubled and alpha / rank is one half
    for key, value in to_kohya(HATE.layers).items():
        halved[key] = value * 2 if "lora_down" in key else value / 2 if "alpha" in key else value
    save_file({k: v.contiguous() for k, v in halved.items()}, tmp_path / "kohya.safetensors")
    expected = merge(HATE, VIOLENCE, method=method)
    for name in ("diffusers", "peft", "kohya"):
        loaded = replace(load_expert(tmp_path / f"{name}.safetensors"), categories=("hate",))
        assert_same_update(merge(loaded, VIOLENCE, method=method), expected)


def test_a_merged_expert_survives_the_file(tmp_path):
    merged = merge(HATE, VIOLENCE)
    back = load_expert(save_expert(merged, tmp_path / "merged.safetensors"))
    assert back.content_hash == merged.content_hash
    assert back.metadata["alignguard.winners"] == merged.metadata["alignguard.winners"]
    assert back.report().splitlines()[1:] == merged.report().splitlines()[1:]


def test_the_result_names_its_members_and_what_each_won():
    merged = merge(HATE, VIOLENCE, strengths=[1.0, 0.5])
    assert merged.categories == ("hate", "violence")
    assert merged.family == "sd15"
    assert merged.metadata["alignguard.method"] == "co_merge"
    assert merged.metadata["alignguard.calibration_hash"] == "c" * 64
    members = json.loads(merged.metadata["alignguard.members"])
    assert [m["hash"] for m in members] == [HATE.content_hash, VIOLENCE.content_hash]
    assert [(m["name"], m["categories"], m["strength"]) for m in members] == [
        ("hate.safetensors", ["hate"], 1.0),
        ("violence.safetensors", ["violence"], 0.5),
    ]
    lines = merged.report().splitlines()
    start = lines.index("output neurons won:")
    assert lines[start + 1].split() == ["down.0", "up.1"]
    won = [[int(n) for n in line.split()[2:]] for line in lines[start + 2 : start + 4]]
    assert [sum(column) for column in zip(*won, strict=True)] == [32, 32]


def test_the_base_hash_is_kept_only_where_all_members_share_it():
    one, two = (random_expert(n, 1, **{"alignguard.base_hash": "b1"}) for n in ("hate", "violence"))
    other = random_expert("sexual", 1, **{"alignguard.base_hash": "b2"})
    assert merge(one, two, method="concat").metadata["alignguard.base_hash"] == "b1"
    assert "alignguard.base_hash" not in merge(one, other, method="concat").metadata


def test_members_of_different_base_models_are_named_in_the_log_and_in_the_report(caplog):
    one, other = (random_expert(n, 1, **{"alignguard.base_hash": n}) for n in ("hate", "sexual"))
    merged = merge(one, other, HATE, method="concat")
    assert caplog.text.count("trained on 2 different base models (hate.safetensors, sexual.safetensors)") == 1
    assert "members trained on: 2 different base models" in merged.report().splitlines()
    caplog.clear()
    assert "members trained on" not in merge(one, HATE, method="concat").report()
    assert not caplog.text


def test_progress_counts_layers_and_may_cancel():
    seen = []
    config = MergeConfig(method="concat")
    merge_experts([HATE, VIOLENCE], config, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_experts([HATE, VIOLENCE], config, on_progress=cancel)


def test_co_merge_without_calibration_names_the_methods_that_need_none():
    with pytest.raises(ValueError, match=r"co_merge of 2 experts needs calibration .* average, concat, "):
        merge_experts([HATE, VIOLENCE], MergeConfig(method="co_merge"))


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_calibration_runs_once_for_the_members_and_only_if_the_method_needs_it(method):
    config, calls = MergeConfig(method=method), []

    def calibrate(members):
        calls.append(members)
        return collected(members, config)

    experts, given = [HATE, VIOLENCE, SEXUAL], {"calibrate": calibrate, "distilled": as_merged}
    merge_experts(experts, config, strengths=[1, 0, 0], **given)
    assert not calls  # a single expert has no rival
    merge_experts(experts, config, strengths=[1, 0, 2], **given)
    if MERGE_METHODS[method].collector:
        (members,) = calls
        assert [(expert.name, strength) for expert, strength in members] == [(HATE.name, 1), (SEXUAL.name, 2)]
        assert members.shapes == SHAPES
    else:
        assert not calls


@pytest.mark.parametrize(
    ("normalize", "experts"),
    [(True, (HATE, VIOLENCE)), (False, (VIOLENCE, HATE)), (False, (HATE, SEXUAL))],
)
def test_statistics_of_another_calibration_are_refused(normalize, experts):
    statistics = statistics_of([HATE, VIOLENCE], method="co_merge")
    config = MergeConfig(method="co_merge", normalize=normalize)
    with pytest.raises(ValueError, match=r"of other experts.*Collect them again"):
        merge_with(statistics, experts, config)


def test_experts_of_different_base_models_are_refused_by_name():
    sdxl = random_expert("violence", 1, family="sdxl")
    with pytest.raises(
        ValueError, match=r"violence.safetensors was trained for SDXL, but hate.safetensors for SD 1.5"
    ):
        merge(HATE, sdxl, method="concat")


def test_layers_of_different_shape_are_refused_by_name():
    layers = {Q: LowRank(torch.ones(64, 1), torch.ones(1, 32))}
    wide = expert_of(layers, name="wide.safetensors")
    with pytest.raises(
        ValueError, match=r"wide.safetensors changes down_blocks.*\(64, 32\).*hate.safetensors"
    ):
        merge(HATE, wide, method="concat")


@pytest.mark.parametrize(
    ("experts", "strengths", "message"),
    [
        ([], None, "at least one expert"),
        ([HATE], [-1], "strength of hate.safetensors must be between 0 and 2, got -1"),
        ([HATE], [2.5], "between 0 and 2"),
        ([HATE], [float("nan")], "between 0 and 2"),
        ([HATE, VIOLENCE], [1.0], "got 1 for 2 experts"),
        ([HATE, VIOLENCE], [0, 0], "nothing is left to merge"),
    ],
)
def test_impossible_merges_are_refused(experts, strengths, message):
    with pytest.raises(ValueError, match=message):
        merge_experts(experts, MergeConfig(method="concat"), strengths=strengths)


def test_an_unknown_method_is_refused_with_the_names_of_all_methods():
    with pytest.raises(ValueError, match="co_merge, average, concat, .*, got 'median'"):
        merge_experts([HATE], MergeConfig(method="median"))


@pytest.mark.parametrize("statistic", ["win_count", "mean", "max"])
def test_activities_serve_other_strengths(statistic):
    statistics = statistics_of([HATE, VIOLENCE], method="co_merge", statistic=statistic)
    for strengths in ([1.0, 1.0], [0.5, 0.5], [0.3, 1.7]):
        config = MergeConfig(method="co_merge", statistic=statistic)
        merged = merge_with(statistics, [HATE, VIOLENCE], config, strengths)
        fresh = merge(HATE, VIOLENCE, method="co_merge", strengths=strengths, statistic=statistic)
        assert merged.content_hash == fresh.content_hash


def test_a_higher_strength_never_loses_a_row_to_rivals_of_one_strength():
    experts, rows_of_first = [HATE, VIOLENCE, SEXUAL], []
    statistics = statistics_of(experts, method="co_merge")
    for strength in (0.1, 0.4, 0.8, 1.2, 1.6, 2.0):
        merged = merge_with(statistics, experts, MergeConfig(method="co_merge"), [strength, 1.1, 1.1])
        winners = json.loads(merged.metadata["alignguard.winners"])
        rows_of_first.append([rows[0] for rows in winners.values()])
    for before, after in zip(rows_of_first, rows_of_first[1:], strict=False):
        assert all(one <= two for one, two in zip(before, after, strict=True))
    assert sum(rows_of_first[0]) < sum(rows_of_first[-1])


@pytest.mark.parametrize("method", FITTED)
def test_fits_serve_other_strengths_and_ranks(method):
    statistics = statistics_of([HATE, VIOLENCE], method=method)
    config = MergeConfig(method=method, output_rank=3)
    merged = merge_with(statistics, [HATE, VIOLENCE], config, [0.5, 2.0])
    fresh = merge(HATE, VIOLENCE, method=method, strengths=[0.5, 2.0], output_rank=3)
    assert merged.content_hash == fresh.content_hash


def test_statistics_of_another_kind_are_refused():
    statistics = statistics_of([HATE, VIOLENCE], method="regmean")
    with pytest.raises(ValueError, match="not what co_merge needs"):
        merge_with(statistics, [HATE, VIOLENCE], MergeConfig(method="co_merge"))


def test_rowpick_warns_unless_all_members_started_from_one_a(caplog):
    start = {"alignguard.initial_a_hash": "a"}
    same = [random_expert(name, seed, **start) for seed, name in enumerate(("hate", "sexual"))]
    merge(*same, level="rowpick_AB")
    assert not caplog.text
    other = random_expert("violence", 3, **{"alignguard.initial_a_hash": "b"})
    for partner in (other, VIOLENCE):
        caplog.clear()
        merged = merge(same[0], partner, level="rowpick_AB")
        assert merged.metadata["alignguard.level"] == "rowpick_AB"
        assert "did not start from the same A" in caplog.text


def test_the_metadata_states_the_settings_that_repeat_the_merge():
    merged = merge(HATE, VIOLENCE, method="dare_ties", density=0.25, seed=3)
    assert merged.metadata["alignguard.density"] == "0.25"
    assert merged.metadata["alignguard.seed"] == "3"
    calibrated = merge(HATE, VIOLENCE).metadata
    stated = (
        "statistic",
        "level",
        "normalize",
        "stop_agreement",
        "timesteps",
        "prompts_per_category",
        "seed",
    )
    assert all(f"alignguard.{name}" in calibrated for name in stated)
    assert "alignguard.seed" not in merge(HATE, VIOLENCE, method="concat").metadata


def repeated(metadata, files):
    """Merge again what a file's metadata describes, from nothing but that and the members."""
    members = json.loads(metadata["alignguard.members"])
    parse = {bool: {"true": True, "false": False}.get, int: int, float: float, str: str}
    stated = {field: metadata.get(f"alignguard.{field.name}") for field in fields(MergeConfig)}
    return merge(
        *(files[member["hash"]] for member in members),
        strengths=[member["strength"] for member in members],
        **{field.name: parse[field.type](text) for field, text in stated.items() if text is not None},
    )


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *((method, {"output_rank": 2, "seed": 3, "density": 0.25}) for method in MERGE_METHODS),
        ("co_merge", {"level": "rank neuron", "statistic": "mean", "seed": 3}),
        ("co_merge", {"level": "rowpick_AB", "normalize": True}),
        ("regmean", {"ridge": 0.02, "neutral_weight": 0.5}),
    ],
)
def test_metadata_and_members_are_enough_to_make_the_same_file_again(tmp_path, method, options):
    merged = merge(HATE, VIOLENCE, SEXUAL, method=method, strengths=[1.0, 0.5, 1.7], **options)
    save_expert(merged, tmp_path / "first.safetensors")
    files = {expert.content_hash: expert for expert in (HATE, VIOLENCE, SEXUAL)}
    again = repeated(load_expert(tmp_path / "first.safetensors").metadata, files)
    save_expert(again, tmp_path / "again.safetensors")
    assert (tmp_path / "first.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_a_merge_of_merges_states_the_settings_of_each_merge():
    inner = merge(HATE, VIOLENCE, method="dare_ties", strengths=[1.0, 0.5], density=0.25, seed=3)
    calibrated = merge(HATE, SEXUAL, method="regmean", ridge=0.02)
    outer = merge(inner, calibrated, method="concat")
    one, other = json.loads(outer.metadata["alignguard.members"])
    files = {expert.content_hash: expert for expert in (HATE, VIOLENCE)}
    settings = {name: json.loads(one["settings"][name]) for name in ("density", "seed", "output_rank")}
    again = merge(
        *(files[member["hash"]] for member in one["members"]),
        method=one["method"],
        strengths=[member["strength"] for member in one["members"]],
        **settings,
    )
    assert again.content_hash == one["hash"] == inner.content_hash
    assert other["settings"]["ridge"] == "0.02"
    assert other["settings"]["calibration_hash"] == calibrated.metadata["alignguard.calibration_hash"]


def test_a_lora_that_lacks_its_text_encoder_is_not_merged():
    half = replace(VIOLENCE, left_out={"tensors of a text encoder": 3})
    with pytest.raises(ValueError, match=r"violence.safetensors also changes .* \(3 tensors of a text"):
        Members.of([HATE, half])
    assert len(Members.of([HATE, half], [1.0, 0.0])) == 1  # it takes no part
    assert len(Members.of([HATE, replace(VIOLENCE, left_out={"norms": 3})])) == 2
