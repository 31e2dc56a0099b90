"""The calibration pass on a tiny UNet: against an explicit sampling, and invariances."""

from dataclasses import replace

import pytest
import torch

from builders import expert_of, layers_of_shapes, seeded
from training.config import MergeConfig
from training.experts.low_rank import LowRank, concatenate
from training.merging import BaseNetwork, CalibrationInputs, Members, collect_statistics, merge_experts
from training.merging.calibration_inputs import starting_noise
from training.merging.collector import tokens_of
from training.merging.input_record import RecordedActivity
from training.merging.regmean import MOST
from training.models.conditioning import Conditioning
from training.models.noise import NoiseSchedule

WIDTH, LATENT = 24, (4, 8, 8)
BLOCK = "down_blocks.0.attentions.0"
MODULES = [  # tokens of the image, of the prompt, none at all, and pixels of a 1x1 convolution
    f"{BLOCK}.transformer_blocks.0.attn1.to_q",
    f"{BLOCK}.transformer_blocks.0.attn2.to_k",
    f"{BLOCK}.transformer_blocks.0.attn2.to_out.0",
    f"{BLOCK}.transformer_blocks.0.ff.net.0.proj",
    f"{BLOCK}.proj_in",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_v",
    "time_embedding.linear_1",
]
SCHEDULE = NoiseSchedule.scaled_linear()
CONFIG = MergeConfig(method="co_merge", timesteps=3)


@pytest.fixture(scope="module")
def unet():
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            norm_num_groups=8,
        ).requires_grad_(False)


@pytest.fixture(scope="module")
def experts(unet):
    return [random_expert(unet, seed) for seed in range(3)]


@pytest.fixture(scope="module")
def prompts():
    return torch.randn(5, 7, WIDTH, generator=torch.Generator().manual_seed(3))


def random_expert(unet, seed, *categories, modules=MODULES):
    shapes = {module: unet.get_submodule(module).weight.shape[:2] for module in modules}
    return expert_of(layers_of_shapes(shapes, seeded(seed)), *categories, name=f"expert_{seed}.safetensors")


def scaled(expert, factor):
    return expert_of({module: layer.scaled(factor) for module, layer in expert.layers.items()})


def collect(
    unet, experts, prompts, config=CONFIG, schedule=SCHEDULE, *, categories=None, pictures=None, **options
):
    inputs = CalibrationInputs(Conditioning(prompts), LATENT, categories, pictures)
    return collect_statistics(BaseNetwork(unet, schedule), inputs, Members.of(experts), config, **options)


def merge(experts, statistics, config=CONFIG, strengths=None):
    """Merge with statistics that were collected before."""
    return merge_experts(experts, config, strengths=strengths, calibrate=lambda _: statistics)


def layers_of(statistics):
    return {module: layer.outputs for module, layer in statistics.layers.items()}


def pictures_of(*counts):
    """Return latents of some pictures per prompt, all different."""
    generator = torch.Generator().manual_seed(5)
    return [[torch.randn(LATENT, generator=generator) for _ in range(count)] for count in counts]


def num_hooks(unet):
    return sum(len(module._forward_pre_hooks) for module in unet.modules())


def explicit_inputs(unet, prompts, schedule, noise):
    """Run diffusers' own DDIM sampler and return what each module got: (inputs, tokens, d_in), fp64."""
    from diffusers import DDIMScheduler

    sampler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        timestep_spacing="trailing",
        prediction_type=schedule.prediction_type,
    )
    sampler.set_timesteps(4)
    seen = {module: [] for module in MODULES}
    handles = [
        unet.get_submodule(module).register_forward_hook(
            lambda _, args, out, to=seen[module]: to.append(args[0])
        )
        for module in MODULES
    ]
    latents = noise
    for timestep in sampler.timesteps:
        predicted = unet(latents, timestep, encoder_hidden_states=prompts).sample
        latents = sampler.step(predicted, timestep, latents).prev_sample
    for handle in handles:
        handle.remove()
    return {module: torch.cat([tokens(x) for x in inputs]).double() for module, inputs in seen.items()}


def tokens(inputs):
    if inputs.ndim == 4:
        return inputs.permute(0, 2, 3, 1).flatten(1, 2)
    return inputs.unsqueeze(1) if inputs.ndim == 2 else inputs


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_statistics_equal_those_of_an_explicit_sampling(unet, experts, prompts, prediction_type):
    schedule = NoiseSchedule.scaled_linear(prediction_type)
    statistics = collect(unet, experts, prompts, MergeConfig(method="co_merge", timesteps=4), schedule)
    inputs = explicit_inputs(unet, prompts, schedule, starting_noise(range(5), LATENT, CONFIG.seed))
    assert statistics.num_inputs == 20
    for module, layer in layers_of(statistics).items():
        deltas = torch.stack([e.layers[module].up.double() @ e.layers[module].down.double() for e in experts])
        reaction = torch.einsum("btd,eod->ebto", inputs[module], deltas).abs().mean(2)  # (experts, 20, d_out)
        close = dict(rtol=1e-3, atol=1e-5)  # fp32 through a whole UNet, three times
        torch.testing.assert_close(layer.total.double(), reaction.sum(1), **close)
        torch.testing.assert_close(layer.peak.double(), reaction.amax(1), **close)
        wins = torch.nn.functional.one_hot(reaction.argmax(0), 3).sum(0).T
        assert (layer.wins - wins).abs().sum() <= 0.01 * wins.sum()  # near-ties may fall either way


def test_batch_size_does_not_matter(unet, experts, prompts):
    one, two, all_at_once = (collect(unet, experts, prompts, batch_size=size) for size in (1, 2, 8))
    for other in (two, all_at_once):
        for module, layer in layers_of(one).items():
            assert torch.equal(layer.wins, other.layers[module].outputs.wins)
            torch.testing.assert_close(layer.total, other.layers[module].outputs.total, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(layer.peak, other.layers[module].outputs.peak, rtol=1e-4, atol=1e-5)
        merged = [merge(experts, statistics) for statistics in (one, other)]
        assert merged[0].content_hash == merged[1].content_hash


def test_all_experts_share_one_pass_of_the_base_model(unet, experts, prompts):
    calls = []
    handle = unet.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        collect(unet, experts, prompts, batch_size=5)
    finally:
        handle.remove()
    assert len(calls) == CONFIG.timesteps


def test_the_base_model_is_left_as_it_was(unet, experts, prompts):
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    random_state = torch.get_rng_state()
    collect(unet, experts, prompts)
    assert num_hooks(unet) == 0
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(before[name], value) for name, value in unet.state_dict().items())


def test_a_cancel_ends_the_pass_and_removes_the_hooks(unet, experts, prompts):
    seen = []

    def cancel(done, total):
        seen.append((done, total))
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(unet, experts, prompts, batch_size=2, on_progress=cancel)
    assert seen == [(2, 15), (4, 15)]
    assert num_hooks(unet) == 0


def test_the_same_seed_repeats_a_calibration_and_another_seed_does_not(unet, experts, prompts):
    first, again = collect(unet, experts, prompts), collect(unet, experts, prompts)
    other = collect(unet, experts, prompts, MergeConfig(method="co_merge", timesteps=3, seed=1))
    assert first.calibration_hash == again.calibration_hash != other.calibration_hash
    assert all(torch.equal(first.layers[m].outputs.total, again.layers[m].outputs.total) for m in MODULES)
    assert not torch.equal(first.layers[MODULES[0]].outputs.total, other.layers[MODULES[0]].outputs.total)


def at(statistics, experts, strengths, module):
    return statistics.at(Members.of(experts, strengths), module)


def test_strengths_do_not_matter_when_statistics_are_collected_and_are_folded_in_when_they_are_used(
    unet, experts, prompts
):
    strengths = [2.0, 1.0, 1.0]
    plain = collect(unet, experts, prompts)
    inputs, members = CalibrationInputs(Conditioning(prompts), LATENT), Members.of(experts, strengths)
    doubled = collect_statistics(BaseNetwork(unet, SCHEDULE), inputs, members, CONFIG)
    won = [0, 0]
    for module, layer in layers_of(plain).items():
        assert all(map(torch.equal, layer, layers_of(doubled)[module]))
        folded = at(plain, experts, strengths, module).outputs
        torch.testing.assert_close(folded.total[0], 2 * layer.total[0])
        torch.testing.assert_close(folded.peak[1:], layer.peak[1:])
        won = [won[0] + int(layer.wins[0].sum()), won[1] + int(folded.wins[0].sum())]
    assert won[1] > won[0]


@pytest.mark.parametrize("level", ["output neuron", "rank neuron"])
def test_wins_at_other_strengths_are_those_of_an_explicit_sampling(unet, experts, prompts, level):
    strengths, weights = [0.5, 1.5, 1.0], torch.tensor([0.5, 1.5, 1.0]).double()[:, None, None]
    statistics = collect(unet, experts, prompts, replace(CONFIG, timesteps=4, level=level))
    inputs = explicit_inputs(unet, prompts, SCHEDULE, starting_noise(range(5), LATENT, CONFIG.seed))
    alike = total = 0
    for module in MODULES:
        layers = [expert.layers[module] for expert in experts]
        if level == "output neuron":
            delta = torch.stack([layer.up.double() @ layer.down.double() for layer in layers])
            reaction = torch.einsum("btd,eod->ebto", inputs[module], delta).abs().mean(2)
            recounted = at(statistics, experts, strengths, module).outputs
        else:
            hidden = torch.einsum(
                "btd,ejd->ebtj", inputs[module], torch.stack([x.down.double() for x in layers])
            )
            reaction = (
                hidden.abs().mean(2) * torch.stack([x.up.double().norm(dim=0) for x in layers])[:, None]
            )
            recounted = at(statistics, experts, strengths, module).ranks
        wins = torch.nn.functional.one_hot((reaction * weights).argmax(0), 3).sum(0).T
        alike += int(torch.minimum(wins, recounted.wins).sum())
        total += int(wins.sum())
    # rank neurons are kept as they are; of output neurons the mean square over few tokens stands for the mean
    assert alike / total > {"output neuron": 0.93, "rank neuron": 0.99}[level]


def test_an_expert_of_high_rank_is_recorded_by_its_strongest_components(unet, experts, prompts):
    wide = expert_of({module: concatenate([layer] * 6) for module, layer in experts[0].layers.items()})
    same = scaled(experts[0], 6.0)
    one, two = (collect(unet, [first, *experts[1:]], prompts) for first in (wide, same))
    for module in MODULES:
        assert one.layers[module].record.moments.shape == (3, 15, 36)
        assert two.layers[module].record.moments.shape == (3, 15, 3)
        counts = [
            at(statistics, [first, *experts[1:]], [0.25, 1.0, 1.0], module).outputs.wins
            for statistics, first in ((one, wide), (two, same))
        ]
        assert (counts[0] - counts[1]).abs().sum() <= 0.01 * counts[0].sum()  # rounding of near-ties


def test_inputs_are_recorded_only_if_wins_may_be_recounted(unet, experts, prompts):
    for options in ({"statistic": "mean"}, {"normalize": True}):
        statistics = collect(unet, experts, prompts, replace(CONFIG, **options))
        assert not any(isinstance(layer, RecordedActivity) for layer in statistics.layers.values())
    mean = collect(unet, experts, prompts, replace(CONFIG, statistic="mean"))
    rows = collect(unet, experts, prompts)
    for statistics, config in ((mean, CONFIG), (rows, replace(CONFIG, level="rank neuron"))):
        merge(experts, statistics, config)
        with pytest.raises(ValueError, match="another normalize, statistic or level"):
            merge(experts, statistics, config, [0.5, 1.0, 1.0])


def test_normalize_makes_the_size_of_an_expert_irrelevant(unet, experts, prompts):
    config = MergeConfig(method="co_merge", timesteps=3, normalize=True)
    small = scaled(experts[0], 2**-10)
    plain = collect(unet, experts, prompts, config)
    shrunk = collect(unet, [small, *experts[1:]], prompts, config)
    for module in MODULES:
        assert torch.equal(plain.layers[module].outputs.wins, shrunk.layers[module].outputs.wins)
    assert collect(unet, [small, *experts[1:]], prompts).layers[MODULES[0]].outputs.wins[0].sum() == 0


def test_normalize_accepts_an_expert_of_zeros(unet, experts, prompts):
    zero = scaled(experts[0], 0.0)
    statistics = collect(
        unet, [zero, experts[1]], prompts, MergeConfig(method="co_merge", timesteps=3, normalize=True)
    )
    assert all(int(layer.wins[0].sum()) == 0 for layer in layers_of(statistics).values())


def test_an_expert_wins_nothing_in_a_layer_it_lacks_or_at_strength_zero(unet, experts, prompts):
    partial = random_expert(unet, 9, modules=MODULES[:2])
    statistics = collect(unet, [partial, experts[0]], prompts)
    assert int(statistics.layers[MODULES[3]].outputs.wins[0].sum()) == 0
    merged = merge([partial, experts[0], experts[1]], statistics, strengths=[1, 1, 0])
    assert torch.equal(merged.layers[MODULES[3]].delta(), experts[0].layers[MODULES[3]].delta())


def test_a_model_in_half_precision_gives_nearly_the_same(unet, experts, prompts):
    import copy

    half = copy.deepcopy(unet).to(torch.bfloat16)
    exact, rounded = collect(unet, experts, prompts), collect(half, experts, prompts)
    for module in MODULES:
        assert rounded.layers[module].outputs.total.dtype == torch.float32
        # bf16 keeps 8 bits, and errors grow through three steps of sampling
        torch.testing.assert_close(
            exact.layers[module].outputs.total, rounded.layers[module].outputs.total, rtol=0.1, atol=0.1
        )


def test_a_model_without_the_experts_layers_is_refused(unet, prompts):
    layer = LowRank(torch.ones(8, 1), torch.ones(1, 8))
    alien = expert_of({"down_blocks.3.attentions.0.proj_in": layer})
    with pytest.raises(ValueError, match=r"0 of 1 layers.*down_blocks.3"):
        collect(unet, [alien], prompts)
    wide = expert_of({MODULES[0]: layer})
    with pytest.raises(ValueError, match=r"shape \(8, 8\), but in this model it is \(32, 32\)"):
        collect(unet, [wide], prompts)


def test_calibration_without_prompts_is_refused(unet, experts):
    with pytest.raises(ValueError, match="at least one calibration prompt"):
        collect(unet, experts, torch.zeros(0, 7, WIDTH))


def test_a_pass_ends_when_its_halves_agree_and_the_metadata_says_so(unet, experts):
    prompts = torch.randn(1, 7, WIDTH, generator=torch.Generator().manual_seed(3)).expand(24, 7, WIDTH)
    categories = ["hate", "violence"] * 12
    config = MergeConfig(method="co_merge", timesteps=1, statistic="mean", stop_agreement=0.5)
    early = collect(unet, experts, prompts, config, categories=categories)
    assert early.num_inputs == 16  # eight rounds of two
    assert early.agreement >= 0.5
    merged = merge(experts, early, config)
    assert merged.metadata["alignguard.calibration_inputs"] == "16"
    assert merged.metadata["alignguard.calibration_agreement"] == f"{early.agreement:.4f}"
    whole = collect(unet, experts, prompts, replace(config, stop_agreement=1.0), categories=categories)
    assert whole.num_inputs == 24
    assert 0 < whole.agreement <= 1


def test_where_a_pass_ends_does_not_depend_on_the_batch_size(unet, experts):
    prompts = torch.randn(20, 7, WIDTH, generator=torch.Generator().manual_seed(3))
    config = MergeConfig(method="co_merge", timesteps=1, statistic="mean", stop_agreement=0.5)
    tags = ["a", "b"] * 10
    one, two = (collect(unet, experts, prompts, config, categories=tags, batch_size=size) for size in (1, 2))
    assert one.num_inputs == two.num_inputs
    assert one.agreement == pytest.approx(two.agreement, abs=1e-6)


def test_too_few_inputs_for_two_halves_leave_the_agreement_unknown(unet, experts, prompts):
    statistics = collect(unet, experts, prompts)
    assert statistics.agreement is None
    merged = merge(experts, statistics)
    assert "alignguard.calibration_agreement" not in merged.metadata


def test_responses_are_those_of_an_explicit_sum(unet):
    modules = [f"{BLOCK}.transformer_blocks.0.attn1.to_{name}" for name in "qkv"]
    modules += [f"{BLOCK}.transformer_blocks.0.attn2.to_{name}" for name in "kv"]
    named = [
        random_expert(unet, seed, name, modules=modules) for seed, name in enumerate(("hate", "violence"))
    ]
    prompts = torch.randn(6, 7, WIDTH, generator=torch.Generator().manual_seed(3))
    config = MergeConfig(method="regmean", timesteps=3)
    categories = ["hate", "hate", "violence", "violence", "", ""]
    statistics = collect(unet, named, prompts, config, categories=categories)
    layer = statistics.layers[modules[3]]  # gets the prompts themselves, at every timestep
    moments = [torch.einsum("btd,bte->de", x, x) / 14 for x in prompts.double().split(2)]
    total = moments[0] + moments[1] + config.neutral_weight * moments[2]
    ridge = config.ridge * total.trace() / WIDTH * torch.eye(WIDTH, dtype=torch.float64)
    down = named[0].layers[modules[3]].down.double()
    expected = MOST * down @ moments[0] @ (total + ridge).inverse()  # the neutral inputs weaken it that much
    torch.testing.assert_close(layer.fitted[0].double(), expected, rtol=1e-4, atol=1e-5)
    merged = merge(named, statistics, config, [1.0, 0.5])
    assert {layer.rank for layer in merged.layers.values()} == {4}
    assert merged.metadata["alignguard.ridge"] == "0.001"


def test_statistics_of_pictures_do_not_depend_on_the_batch_size_and_name_their_source(unet, experts, prompts):
    pictures = pictures_of(2, 1, 2, 1, 2)
    one, all_at_once = (
        collect(unet, experts, prompts, batch_size=size, pictures=pictures) for size in (1, 8)
    )
    for module, layer in layers_of(one).items():
        torch.testing.assert_close(layer.total, layers_of(all_at_once)[module].total, rtol=1e-4, atol=1e-5)
    drawn = collect(unet, experts, prompts)
    others = collect(unet, experts, prompts, pictures=pictures_of(1, 1, 1, 1, 1))
    hashes = {statistics.calibration_hash for statistics in (one, all_at_once, drawn, others)}
    assert len(hashes) == 3
    for statistics, source in ((one, "pictures"), (drawn, "drawn by the base model")):
        merged = merge(experts, statistics)
        assert merged.metadata["alignguard.calibration_source"] == source
        assert f"calibration latents: {source}" in merged.report()


def test_a_method_without_statistics_cannot_be_calibrated(unet, experts, prompts):
    with pytest.raises(ValueError, match="average needs no statistics; only these do: co_merge, regmean"):
        collect(unet, experts, prompts, MergeConfig(method="average"))


def test_experts_in_a_wide_convolution_are_compared_by_the_output_they_add(unet, prompts):
    modules = ["down_blocks.0.resnets.0.conv1", "down_blocks.0.downsamplers.0.conv"]
    weights = {module: unet.get_submodule(module).weight for module in modules}
    shapes = {module: (len(weight), weight[0].numel()) for module, weight in weights.items()}
    generator = seeded(1)
    experts = [expert_of(layers_of_shapes(shapes, generator), name=name) for name in ("a", "b")]
    added = {module: [0, 0] for module in modules}

    def add_up(layer, args, _, module):
        for i, expert in enumerate(experts):
            weight = expert.layers[module].delta().reshape(layer.weight.shape)
            change = torch.conv2d(args[0], weight, stride=layer.stride, padding=layer.padding)
            added[module][i] = added[module][i] + change.abs().mean((2, 3)).sum(0)

    hooks = [
        unet.get_submodule(name).register_forward_hook(lambda *a, name=name: add_up(*a, name))
        for name in modules
    ]
    statistics = collect(unet, experts, prompts)
    for hook in hooks:
        hook.remove()
    for module in modules:
        close = dict(rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(layers_of(statistics)[module].total, torch.stack(added[module]), **close)
    assert set(merge(experts, statistics).layers) == set(modules)


def test_evenly_spaced_tokens_are_read_if_there_are_many():
    assert tokens_of(torch.arange(600.0).view(1, 600, 1)).flatten().tolist() == list(range(0, 600, 3))
    assert tokens_of(torch.arange(600.0).view(1, 1, 20, 30)).shape == (1, 200, 1)
    assert tokens_of(torch.zeros(2, 256, 5)).shape == (2, 256, 5)
