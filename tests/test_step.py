"""One step against a textbook that is written out pair by pair, with a second UNet as the reference."""

import dataclasses
import math

import pytest
import torch
from tiny import random_layers, tiny_data, tiny_unet

from training import adapter
from training.batch import draw_step
from training.config import TrainConfig
from training.families.family import rescaled
from training.losses import LOSSES, resolved
from training.noise import NoiseSchedule
from training.step import Run, take_step

SCHEDULES = {
    "epsilon": NoiseSchedule.scaled_linear(),
    "v": NoiseSchedule.scaled_linear("v_prediction"),
    "v, zero terminal SNR": rescaled(NoiseSchedule.scaled_linear("v_prediction")),
}
CONFIG = TrainConfig(
    steps=1, batch_size=3, rank=3, safe_prompt_weight=0.5, caption_dropout=0.5, row_dropout=0.0, seed=5
)
LAYERS = random_layers(tiny_unet())


def textbook_alphas(zero_terminal_snr):
    """Share of signal left: of Stable Diffusion's betas, rescaled as arXiv:2305.08891, algorithm 1."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    roots = torch.cumprod(1 - betas, 0) ** 0.5
    if zero_terminal_snr:
        roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    return roots**2


class Textbook:
    """The formulas of the papers on one image at a time; the policy is a UNet with the LoRA added in."""

    def __init__(self, kind):
        self.alphas = textbook_alphas("zero" in kind)
        self.predicts_v = kind != "epsilon"
        self.reference, self.policy = tiny_unet(), tiny_unet()
        for name, layer in LAYERS.items():
            self.policy.get_submodule(name).weight += layer.up @ layer.down

    def errors(self, latents, noise, timestep, text):
        """Return the mean squared errors of policy and reference on a noised image."""
        signal, sigma = self.alphas[timestep] ** 0.5, (1 - self.alphas[timestep]) ** 0.5
        target = signal * noise - sigma * latents if self.predicts_v else noise
        noisy = (signal * latents + sigma * noise).float()
        outputs = (self.output(unet, noisy, timestep, text) for unet in (self.policy, self.reference))
        return [((output - target) ** 2).mean().item() for output in outputs]

    def distance(self, noisy, timestep, text):
        policy, reference = (
            self.output(unet, noisy, timestep, text) for unet in (self.policy, self.reference)
        )
        return ((policy - reference) ** 2).mean().item()

    @torch.no_grad()
    def output(self, unet, noisy, timestep, text):
        return unet(noisy[None], int(timestep), encoder_hidden_states=text[None]).sample[0].double()

    def noised(self, latents, noise, timestep):
        return (self.alphas[timestep] ** 0.5 * latents + (1 - self.alphas[timestep]) ** 0.5 * noise).float()

    def preference(self, winner, loser, noise, timestep, text, factor):
        (won, ref_won), (lost, ref_lost) = (
            self.errors(latents, noise, timestep, text) for latents in (winner, loser)
        )
        return math.log1p(math.exp(factor * ((won - ref_won) - (lost - ref_lost))))


def one_step(config, data, schedule):
    unet = tiny_unet()
    adapter.attach_adapter(unet, rank=3, alpha=0, targets="attention", seed=0)
    adapter.load_adapter(unet, LAYERS)
    run = Run(unet, data, schedule, resolved(config), None)
    take_step(run)
    return run.metrics


def drawn(config, timesteps=1000, num_neutral=3):
    return draw_step(
        0,
        seed=config.seed,
        batch_size=config.batch_size,
        num_pairs=6,
        num_neutral=num_neutral,
        latent_shape=(4, 8, 8),
        num_timesteps=timesteps,
        caption_dropout=config.caption_dropout,
    )


def text_of(data, draw, number, kind):
    """Return the caption of a drawn pair: the unsafe (0) or the safe (1) prompt, or the empty one."""
    if draw.dropped[number, kind]:
        return data.empty.text_embeds[0]
    return data.prompts.text_embeds[(data.unsafe_prompt, data.safe_prompt)[kind][draw.pairs[number]]]


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(("objective", "beta"), [("alignguard", 50.0), ("anchored", 50.0)])
def test_both_prompts_of_a_pair_are_trained_as_the_paper_has_it(objective, beta, kind):
    config = dataclasses.replace(CONFIG, objective=objective, beta=beta, preserve_weight=7.0)
    data, draw, book = tiny_data(), drawn(config), Textbook(kind)
    losses = ([], [])
    for number, pair in enumerate(draw.pairs):
        for prompt in (0, 1):
            losses[prompt].append(
                book.preference(
                    data.winner[pair],
                    data.loser[pair],
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
                book.noised(data.neutral[row], draw.neutral_noise[n], draw.neutral_timesteps[n]),
                draw.neutral_timesteps[n],
                data.prompts.text_embeds[data.neutral_prompt[row]],
            )
            for n, row in enumerate(draw.neutral)
        ]
    )
    anchor = (
        0.04
        * beta
        * mean(
            [
                book.errors(data.winner[pair], draw.noise[n], draw.timesteps[n], text_of(data, draw, n, 0))[0]
                for n, pair in enumerate(draw.pairs)
            ]
        )
    )
    metrics = one_step(config, data, SCHEDULES[kind])
    assert metrics["preference"] == pytest.approx(preference, rel=1e-4)  # fp32 errors times beta
    assert metrics["preservation"] == pytest.approx(kept, rel=1e-4)
    if objective == "anchored":
        assert metrics["winner_anchor"] == pytest.approx(anchor, rel=1e-4)
        assert metrics["loss"] == pytest.approx(preference + anchor + kept, rel=1e-4)
    else:
        assert metrics["loss"] == pytest.approx(preference + kept, rel=1e-4)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_duo_trains_under_the_empty_prompt_and_keeps_what_is_made_of_pure_noise(kind):
    config = dataclasses.replace(CONFIG, objective="duo", beta=50.0, caption_dropout=1.0)
    data, draw, book = tiny_data(), drawn(config, timesteps=750), Textbook(kind)
    preference = mean(
        [
            book.preference(
                data.winner[pair],
                data.loser[pair],
                draw.noise[n],
                draw.timesteps[n],
                data.empty.text_embeds[0],
                50.0,
            )
            for n, pair in enumerate(draw.pairs)
        ]
    )
    kept = mean([book.distance(draw.neutral_noise[n], 999, data.empty.text_embeds[0]) for n in range(3)])
    metrics = one_step(config, data, SCHEDULES[kind])
    assert metrics["preference"] == pytest.approx(preference, rel=1e-4)
    assert metrics["output_preservation"] == pytest.approx(1e6 * 50 / 100 * kept, rel=1e-4)
    assert metrics["loss"] == pytest.approx(preference + 1e6 * 50 / 100 * kept, rel=1e-4)


def test_duo_is_alignguard_at_twice_the_beta_where_the_formulas_meet():
    shared = dataclasses.replace(CONFIG, prompts="empty", preserve_weight=0.0)
    duo = dataclasses.replace(shared, objective="duo", beta=500.0)
    paper = dataclasses.replace(shared, objective="alignguard", beta=1000.0)
    seed = next(  # one whose timesteps DUO would draw too: both draw below 750 of 1000 from equal numbers
        seed
        for seed in range(1000)
        if torch.equal(
            drawn(dataclasses.replace(shared, seed=seed)).timesteps,
            drawn(dataclasses.replace(shared, seed=seed), timesteps=750).timesteps,
        )
    )
    one, other = (
        one_step(dataclasses.replace(config, seed=seed), tiny_data(), SCHEDULES["epsilon"])
        for config in (duo, paper)
    )
    assert one == other


def test_duo_noises_pairs_at_the_first_750_timesteps_only():
    assert LOSSES["duo"].num_timesteps == 750
    assert drawn(dataclasses.replace(CONFIG, batch_size=256), timesteps=750).timesteps.max() < 750
