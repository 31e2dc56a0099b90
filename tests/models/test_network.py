"""A network outside diffusers is trained, merged and measured by the same code as a UNet."""

import math
from dataclasses import replace

import pytest
import torch

from builders import expert_of
from tiny_flow import SCHEDULE, TinyFlow, tiny_flow_data
from tiny_runs import SMALL, equal_layers, run
from training.config import MergeConfig
from training.experts import adapter
from training.experts.low_rank import LowRank
from training.losses import LOSSES, resolved
from training.losses.errors import PairErrors
from training.merging import BaseNetwork, CalibrationInputs, distill, merge_experts
from training.merging.calibrate import collect_statistics
from training.models.conditioning import Conditioning, predict
from training.models.flow import SD3
from training.models.network import MODES, input_like, set_checkpointing
from training.models.noise import squared_error
from training.trainer.batch import draw_batch, fetch_batch
from training.trainer.progress import Progress
from training.trainer.run import Run
from training.trainer.step import accumulate_gradients

CONFIG = replace(SMALL, objective="alignguard", caption_dropout=0.0, safe_prompt_weight=0.0, flip=0.0)


@pytest.fixture
def network():
    return TinyFlow()


def started(network, data, config=CONFIG):
    adapter.attach_adapter(network, rank=2, alpha=0, targets=config.targets, seed=0)
    return Run.of(network, data, SCHEDULE, resolved(config))


def gradients(network, data):
    run_of_step = started(network, data)
    figures, _ = accumulate_gradients(run_of_step, Progress(run_of_step), draw_batch(run_of_step, 0))
    return figures, {name: factor.grad.clone() for name, factor in run_of_step.parameters.items()}


def moved(network, seed=1):
    """Give the adapter of a network an update that can be seen."""
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: LowRank(0.3 * torch.randn(layer.up.shape, generator=generator), layer.down)
        for name, layer in adapter.read_adapter(network).items()
    }
    adapter.load_adapter(network, layers)
    return layers


def test_layers_have_the_names_of_the_network_and_training_leaves_it_as_it_was(network):
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    result = run(CONFIG, unet=network, data=tiny_flow_data(), schedule=SCHEDULE)
    assert "joint_blocks.0.x_block.attn.qkv" in result.layers
    assert all(SD3.has_layer(name) for name in result.layers)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_zero_adapter_gives_log_two(network):
    figures, _ = gradients(network, tiny_flow_data())
    assert float(figures["loss"]) == pytest.approx(math.log(2), abs=1e-6)


def test_the_loss_of_a_pair_is_that_of_its_velocity_errors_by_hand(network):
    data = tiny_flow_data()
    run_of_step = started(network, data)
    moved(network)
    draw = draw_batch(run_of_step, 0)
    figures, _ = accumulate_gradients(run_of_step, Progress(run_of_step), draw)
    sigma = SCHEDULE.sigmas[draw.timesteps][:, None, None, None]
    prompts = data.prompts[data.unsafe_prompt[draw.pairs]]
    errors = {}
    for is_reference in (False, True):
        with adapter.reference(network) if is_reference else torch.no_grad(), torch.no_grad():
            for side in ("winner", "loser"):
                clean = getattr(data, side)[draw.pairs]
                noisy = (1 - sigma) * clean + sigma * draw.noise
                velocity = network.predict(noisy, draw.timesteps, prompts)
                errors[is_reference, side] = (velocity - (draw.noise - clean)).square().mean(dim=(1, 2, 3))
    margin = (errors[True, "winner"] - errors[False, "winner"]) - (
        errors[True, "loser"] - errors[False, "loser"]
    )
    by_hand = -torch.nn.functional.logsigmoid(CONFIG.beta / 2 * margin).mean()
    assert float(figures["loss"]) == pytest.approx(float(by_hand), rel=1e-5)


@pytest.mark.parametrize("targets", ["attention", "attention+ff", "self-attention"])
def test_every_target_gets_a_gradient(network, targets):
    config = replace(CONFIG, targets=targets)
    run_of_step = started(network, tiny_flow_data(), config)
    moved(network)
    accumulate_gradients(run_of_step, Progress(run_of_step), draw_batch(run_of_step, 0))
    without = {name for name, factor in run_of_step.parameters.items() if not factor.grad.count_nonzero()}
    last = len(network.block_list) - 1
    unread = f"joint_blocks.{last}.context_block."  # nothing reads what leaves the text there
    ends = [name for name in run_of_step.parameters if name.startswith(unread) and ".qkv." not in name]
    assert without == set(ends)
    assert ("mlp" in "".join(run_of_step.parameters)) == (targets == "attention+ff")
    assert ("context_block" in "".join(run_of_step.parameters)) == (targets != "self-attention")


def test_padding_changes_nothing_and_rows_of_unequal_length_are_run_apart(network):
    prompts = tiny_flow_data(uneven=True).prompts
    noisy = torch.randn(len(prompts), 4, 8, 8, generator=torch.Generator().manual_seed(2))
    timesteps = torch.arange(len(prompts)) * 50
    together = predict(network, noisy, timesteps, prompts)
    for row in range(len(prompts)):
        alone = Conditioning(prompts.text_embeds[[row], : prompts.lengths[row]], prompts.pooled[[row]])
        predicted = predict(network, noisy[[row]], timesteps[[row]], alone)
        torch.testing.assert_close(predicted, together[[row]], rtol=1e-4, atol=1e-5)
    padding = torch.arange(prompts.text_embeds.shape[1]) >= torch.tensor(prompts.lengths)[:, None]
    other = replace(prompts, text_embeds=prompts.text_embeds.masked_fill(padding[..., None], 9.0))
    assert torch.equal(predict(network, noisy, timesteps, other), together)


def test_prompts_of_unequal_length_are_joined_and_replaced_row_by_row():
    short, long = (Conditioning(torch.full((1, tokens, 2), float(tokens))) for tokens in (3, 5))
    joined = Conditioning.concatenate([short, long, short])
    assert joined.lengths == (3, 5, 3)
    assert joined.text_embeds.shape == (3, 5, 2)
    assert joined[[1, 0]].lengths == joined[torch.tensor([1, 2])].lengths == (5, 3)
    assert joined[1:].to(torch.float16).lengths == (5, 3)
    replaced = joined.replaced(torch.tensor([False, True, True]), short)
    assert replaced.lengths == (3, 3, 3)
    assert [rows for rows, _ in joined.by_length()] == [[0, 2], [1]]
    ((_, part),) = replaced.by_length()
    assert torch.equal(part.text_embeds, torch.full((3, 3, 2), 3.0))


def test_training_with_prompts_of_unequal_length_gives_finite_figures(network):
    result = run(SMALL, unet=network, data=tiny_flow_data(uneven=True), schedule=SCHEDULE)
    assert all(map(math.isfinite, result.losses))


@pytest.mark.parametrize("mode", MODES)
def test_recomputing_blocks_changes_no_gradient(network, mode):
    data = tiny_flow_data()
    _, expected = gradients(network, data)
    other = TinyFlow()
    set_checkpointing(other, mode)
    counted = []
    handles = [
        block.x_block.attn.qkv.register_forward_hook(lambda *_: counted.append(1))
        for block in other.block_list
    ]
    _, found_gradients = gradients(other, data)
    for handle in handles:
        handle.remove()
    for name in expected:
        torch.testing.assert_close(found_gradients[name], expected[name], rtol=1e-5, atol=1e-7)
    set_checkpointing(other, "none")
    assert not any("forward" in vars(block) for block in other.block_list)
    again = {"none": 0, "selective": 2, "full": 3}[mode]  # blocks that run once more in the backward pass
    assert len(counted) == 2 * len(other.block_list) + again


def test_equal_runs_give_equal_experts(network):
    results = [run(CONFIG, unet=network, data=tiny_flow_data(), schedule=SCHEDULE) for _ in range(2)]
    assert equal_layers(*results)


@pytest.mark.parametrize("objective", [name for name in LOSSES if name != "composite"])  # it needs costs
def test_every_objective_trains_with_everything_it_can_measure(network, objective):
    config = replace(SMALL, objective=objective, beta=0.0, bank=2, validation=0.4, validate_every=2)
    data = tiny_flow_data(uneven=True)
    result = run(config, unet=network, data=data, schedule=SCHEDULE, free_bytes=10**9)
    assert all(map(math.isfinite, result.losses))
    assert math.isfinite(result.validation["margin"])
    assert result.plan.peak_bytes > 0
    assert any(bool(layer.up.count_nonzero()) for layer in result.layers.values())


@pytest.mark.parametrize("method", ["regmean", "distill", "co_merge"])
@pytest.mark.parametrize("has_pictures", [True, False])
def test_calibrated_merges_read_the_network(network, method, has_pictures):
    data, experts = tiny_flow_data(uneven=True), []
    for seed, category in enumerate(("hate", "violence")):
        adapter.attach_adapter(network, rank=2, alpha=0, targets="attention", seed=seed)
        experts.append(replace(expert_of(moved(network, seed), category), family="sd3", name=category))
        adapter.detach_adapter(network)
    prompts = data.prompts[: 3 * len(experts)]
    pictures = [[data.winner[[number]][0]] for number in range(len(prompts))] if has_pictures else None
    inputs = CalibrationInputs(prompts, (4, 8, 8), ("hate", "violence", "") * 2, pictures)
    config = MergeConfig(method=method, timesteps=2, distill_steps=2)
    base = BaseNetwork(network, SCHEDULE, "hash")
    merged = merge_experts(
        experts,
        config,
        calibrate=lambda members: collect_statistics(base, inputs, members, config),
        distilled=lambda members, layers: distill(base, inputs, members, layers, config),
    )
    assert merged.family == "sd3"
    assert merged.layers.keys() == experts[0].layers.keys()


def test_a_network_states_the_type_of_its_inputs(network):
    assert input_like(network).dtype == torch.float32
    errors = PairErrors(*(squared_error(torch.ones(2, 3), torch.zeros(2, 3)) for _ in range(4)))
    assert errors.margin.tolist() == [0, 0]


def test_the_batch_has_the_targets_of_a_flow(network):
    run_of_step = started(network, tiny_flow_data())
    draw = draw_batch(run_of_step, 0)
    batch = fetch_batch(run_of_step, draw)
    count = len(draw.pairs)
    winners = run_of_step.data.winner[draw.pairs]
    assert torch.equal(batch.target[:count], draw.noise - winners)


class Writing(torch.nn.Module):
    """A block that writes into its input, as those of some hosts do."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3).requires_grad_(False)

    def forward(self, picture):
        picture += self.layer(picture).sigmoid()
        return picture


def test_a_block_that_writes_into_its_input_is_run_again_on_what_it_saw_first(network):
    torch.manual_seed(0)
    chain = torch.nn.ModuleList([Writing(), Writing()])
    network.joint_blocks = chain
    start, results = torch.randn(2, 3, requires_grad=True), []
    for mode in MODES:
        set_checkpointing(network, mode)
        output = start * 1
        for block in chain:
            output = block(output)
        results.append(torch.autograd.grad(output.square().sum(), start)[0])
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])
