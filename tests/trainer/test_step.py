"""One step compared with a textbook implementation, pair by pair, with a second UNet as the reference."""

import dataclasses
import math

import pytest
import torch

from tiny import random_layers, tiny_data, tiny_unet
from tiny_runs import two_buckets
from training.config import TrainConfig
from training.experts import adapter
from training.losses import LOSSES, resolved
from training.models.family import rescaled
from training.models.noise import NoiseSchedule
from training.trainer.draws import DrawRules, draw_step
from training.trainer.loop import train
from training.trainer.progress import Progress
from training.trainer.run import Run
from training.trainer.step import take_step

SCHEDULES = {
    "epsilon": NoiseSchedule.scaled_linear(),
    "v": NoiseSchedule.scaled_linear("v_prediction"),
    "v, zero terminal SNR": rescaled(NoiseSchedule.scaled_linear("v_prediction")),
}
CONFIG = TrainConfig(
    steps=1,
    batch_size=3,
    rank=3,
    safe_prompt_weight=0.5,
    caption_dropout=0.5,
    row_dropout=0.0,
    flip=0.5,
    seed=5,
)
REFERENCE, POLICY = tiny_unet(), tiny_unet()
LAYERS = random_layers(REFERENCE)
for _name, _layer in LAYERS.items():
    POLICY.get_submodule(_name).weight += _layer.up @ _layer.down


def textbook_alphas(zero_terminal_snr):
    """Share of signal left: of Stable Diffusion's betas, rescaled as arXiv:2305.08891, algorithm 1."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    roots = torch.cumprod(1 - betas, 0) ** 0.5
    if zero_terminal_snr:
        roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    return roots**2


class Textbook:
    """The formulas of the papers on one image at a time; the policy is a UNet with the LoRA added to it."""

    def __init__(self, kind):
        self.alphas = textbook_alphas("zero" in kind)
        self.predicts_v = kind != "epsilon"

    def errors(self, latents, noise, timestep, text):
        """Return the mean squared errors of policy and reference on a noised image."""
        signal, sigma = self.alphas[timestep] ** 0.5, (1 - self.alphas[timestep]) ** 0.5
        target = signal * noise - sigma * latents if self.predicts_v else noise
        noisy = (signal * latents + sigma * noise).float()
        outputs = (self.output(unet, noisy, timestep, text) for unet in (POLICY, REFERENCE))
        return [((output - target) ** 2).mean().item() for output in outputs]

    def distance(self, noisy, timestep, text):
        policy, reference = (self.output(unet, noisy, timestep, text) for unet in (POLICY, REFERENCE))
        return ((policy - reference) ** 2).mean().item()

    @torch.no_grad()
    def output(self, unet, noisy, timestep, text):
        return unet(noisy[None], int(timestep), encoder_hidden_states=text[None]).sample[0].double()

    def noised(self, latents, noise, timestep):
        return (self.alphas[timestep] ** 0.5 * latents + (1 - self.alphas[timestep]) ** 0.5 * noise).float()

    def led(self, latents, draw, number, data):
        """Return how far the policy under the unsafe prompt is from the reference under the safe one."""
        noisy = self.noised(latents, draw.noise[number], draw.timesteps[number])
        policy, reference = (
            self.output(unet, noisy, draw.timesteps[number], data.prompts.text_embeds[prompt])
            for unet, prompt in (
                (POLICY, data.unsafe_prompt[draw.pairs[number]]),
                (REFERENCE, data.safe_prompt[draw.pairs[number]]),
            )
        )
        return ((policy - reference) ** 2).mean().item()

    def preference(self, winner, loser, noise, timestep, text, factor):
        (won, ref_won), (lost, ref_lost) = (
            self.errors(latents, noise, timestep, text) for latents in (winner, loser)
        )
        return math.log1p(math.exp(factor * ((won - ref_won) - (lost - ref_lost))))


def one_step(config, data, schedule):
    unet = tiny_unet()
    adapter.attach_adapter(unet, rank=3, alpha=0, targets="attention", seed=0)
    adapter.load_adapter(unet, LAYERS)
    run = Run.of(unet, data, schedule, resolved(config))
    progress = Progress(run)
    take_step(run, progress)
    return progress.metrics


def drawn(config, data, timesteps=1000):
    rules = DrawRules.of(config)._replace(num_timesteps=timesteps)
    return draw_step(0, data.buckets, rules, batch_size=config.batch_size)


def pictures_of(data, draw, number):
    """Return the latents of the winner and the loser of a drawn pair: both mirrored, or none."""
    row = draw.pairs[number] + (6 if draw.flipped[number] else 0)
    return data.winner[row], data.loser[row]


def text_of(data, draw, number, kind):
    """Return the caption of a drawn pair: the unsafe (0) or the safe (1) prompt, or the empty one."""
    if draw.dropped[number, kind]:
        return data.empty.text_embeds[0]
    return data.prompts.text_embeds[(data.unsafe_prompt, data.safe_prompt)[kind][draw.pairs[number]]]


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(("objective", "beta"), [("alignguard", 50.0), ("anchored", 50.0)])
def test_both_prompts_of_a_pair_are_trained_as_in_the_paper(objective, beta, kind):
    config = dataclasses.replace(CONFIG, objective=objective, beta=beta, preserve_weight=7.0)
    data, book = tiny_data(mirrored=True), Textbook(kind)
    draw = drawn(config, data)
    assert len(set(draw.flipped.tolist())) == 2
    losses = ([], [])
    for number in range(3):
        for prompt in (0, 1):
            losses[prompt].append(
                book.preference(
                    *pictures_of(data, draw, number),
                    draw.noise[number],
                    draw.timesteps[number],
                    text_of(data, draw, number, prompt),
                    beta / 2,
                )
            )
    preference = (mean(losses[0]) + 0.5 * mean(losses[1])) / 1.5
    kept = 7 * mean(
        [
            book.distance(
                book.noised(
                    data.neutral[row + (3 if draw.neutral_flipped[n, side] else 0)],
                    draw.neutral_noise[n, side],
                    draw.neutral_timesteps[n, side],
                ),
                draw.neutral_timesteps[n, side],
                data.prompts.text_embeds[data.neutral_prompt[row]],
            )
            for n, rows in enumerate(draw.neutral)
            for side, row in enumerate(rows)
        ]
    )
    led = mean(
        [
            0.0 if draw.dropped[n, 0] else book.led(picture, draw, n, data)
            for n in range(3)
            for picture in pictures_of(data, draw, n)
        ]
    )
    led *= 0.2 * beta
    metrics = one_step(config, data, SCHEDULES[kind])
    assert metrics["preference"] == pytest.approx(preference, rel=1e-4)  # fp32 errors times beta
    assert metrics["preservation"] == pytest.approx(kept, rel=1e-4)
    if objective == "anchored":
        assert metrics["safe_lead"] == pytest.approx(led, rel=1e-4)
        assert led > 0
        assert metrics["loss"] == pytest.approx(preference + led + kept, rel=1e-4)
    else:
        assert metrics["loss"] == pytest.approx(preference + kept, rel=1e-4)


def test_a_winner_whose_two_prompts_are_the_same_is_led_to_its_noise_and_its_loser_nowhere():
    data = tiny_data(mirrored=True)
    data = dataclasses.replace(data, safe_prompt=data.unsafe_prompt)
    config = dataclasses.replace(CONFIG, beta=50.0, safe_prompt_weight=0.0, caption_dropout=0.0)
    draw, book = drawn(config, data), Textbook("epsilon")
    errors = [
        book.errors(
            pictures_of(data, draw, n)[0], draw.noise[n], draw.timesteps[n], text_of(data, draw, n, 0)
        )[0]
        for n in range(3)
    ]
    metrics = one_step(config, data, SCHEDULES["epsilon"])
    assert metrics["safe_lead"] == pytest.approx(0.2 * 50 * sum(errors) / 6, rel=1e-4)  # of 6 pictures


@pytest.mark.parametrize("kind", SCHEDULES)
def test_duo_trains_under_the_empty_prompt_and_preserves_outputs_on_pure_noise(kind):
    config = dataclasses.replace(CONFIG, objective="duo", beta=50.0, caption_dropout=1.0)
    data, book = tiny_data(mirrored=True), Textbook(kind)
    draw = drawn(config, data, timesteps=750)
    preference = mean(
        [
            book.preference(
                *pictures_of(data, draw, n),
                draw.noise[n],
                draw.timesteps[n],
                data.empty.text_embeds[0],
                50.0,
            )
            for n in range(3)
        ]
    )
    noises = [draw.neutral_noise[n, 0] for n in range(3)]
    kept = mean([book.distance(noise, 999, data.empty.text_embeds[0]) for noise in noises])
    metrics = one_step(config, data, SCHEDULES[kind])
    assert metrics["preference"] == pytest.approx(preference, rel=1e-4)
    assert metrics["output_preservation"] == pytest.approx(1e6 * 50 / 100 * kept, rel=1e-4)
    assert metrics["loss"] == pytest.approx(preference + 1e6 * 50 / 100 * kept, rel=1e-4)


def test_duo_is_alignguard_at_twice_the_beta_where_the_formulas_meet():
    shared = dataclasses.replace(CONFIG, prompts="empty", preserve_weight=0.0)
    duo = dataclasses.replace(shared, objective="duo", beta=500.0)
    paper = dataclasses.replace(shared, objective="alignguard", beta=1000.0)
    seed = next(  # with timesteps that DUO draws too: all below 750
        seed
        for seed in range(1000)
        if torch.equal(
            drawn(dataclasses.replace(shared, seed=seed), tiny_data()).timesteps,
            drawn(dataclasses.replace(shared, seed=seed), tiny_data(), timesteps=750).timesteps,
        )
    )
    one, other = (
        one_step(dataclasses.replace(config, seed=seed), tiny_data(mirrored=True), SCHEDULES["epsilon"])
        for config in (duo, paper)
    )
    assert one == other


def test_duo_noises_pairs_at_the_first_750_timesteps_only():
    assert LOSSES["duo"].num_timesteps == 750
    draw = drawn(dataclasses.replace(CONFIG, batch_size=256), tiny_data(), timesteps=750)
    assert draw.timesteps.max() < 750


def test_a_step_sees_one_bucket_and_every_bucket_is_seen(tmp_path):
    data, sizes = two_buckets(tmp_path), []
    unet = tiny_unet()
    unet.register_forward_pre_hook(lambda module, args: sizes.append(tuple(args[0].shape[2:])))
    config = dataclasses.replace(
        CONFIG, objective="anchored", steps=6, batch_size=2, beta=500.0, validation=0.0
    )
    result = train(unet, data, SCHEDULES["epsilon"], config)
    assert set(sizes) == {(8, 4), (6, 6)}  # at 48: 64 x 32 pixels, and the square
    assert sizes[::3] == sizes[1::3] == sizes[2::3]  # reference under both prompts, and policy
    assert result.losses == train(unet, data, SCHEDULES["epsilon"], config).losses
