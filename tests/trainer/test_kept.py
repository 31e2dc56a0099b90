"""What a run keeps: everyday prompts on the pictures of the pairs, and a user's own pictures first."""

import dataclasses
import itertools

import pytest
import torch

from tiny import tiny_data, tiny_unet
from tiny_runs import SCHEDULE, SMALL, equal_layers, run, two_buckets
from training.experts import adapter
from training.losses import resolved
from training.models.noise import NoiseSchedule
from training.pairs.everyday import HELD_OUT, everyday, everyday_prompts
from training.trainer.batch import draw_batch, fetch_batch
from training.trainer.kept import ENDLESS, FEWEST, SHOWN, everyday_of, kept_text, measured_rows, with_everyday
from training.trainer.run import Run
from training.trainer.validation import held_out_draws

NUM_PAIRS, NUM_OWN, NUM_EVERYDAY, NUM_MEASURED = 6, 2, 5, 3


def everyday_data(num_own=NUM_OWN, **options):
    """Return tiny data whose last prompts are everyday ones, without or with neutral pictures of a user."""
    data = tiny_data(num_neutral=NUM_OWN + NUM_EVERYDAY + NUM_MEASURED, **options)
    first = 2 * NUM_PAIRS + NUM_OWN
    rows = torch.arange(NUM_PAIRS)
    own = rows[:num_own]
    parts = {
        "neutral": data.neutral[: num_own * (1 + data.is_mirrored)],
        "neutral_prompt": torch.arange(2 * NUM_PAIRS, 2 * NUM_PAIRS + num_own),
        "neutral_pair": torch.full((num_own,), -1),
    }
    if not num_own:  # the safe pictures stand in, as `arrange` has it
        own = rows
        parts = {"neutral": data.winner, "neutral_prompt": data.safe_prompt, "neutral_pair": rows}
    return dataclasses.replace(
        data,
        **parts,
        buckets=(data.buckets[0]._replace(neutral=own),),
        everyday_prompt=torch.arange(first, first + NUM_EVERYDAY),
        measured_prompt=torch.arange(first + NUM_EVERYDAY, first + NUM_EVERYDAY + NUM_MEASURED),
        sentence_prompt=torch.arange(first, first + NUM_EVERYDAY)[-2:],
    )


def test_everyday_prompts_are_distinct_and_some_are_never_kept():
    prompts = everyday_prompts()
    kept, measured = everyday(10**6, 10**6)
    assert len(prompts) == len(set(prompts)) >= 300
    assert not set(kept) & set(measured)
    assert (len(measured), len(kept)) == (HELD_OUT, len(prompts) - HELD_OUT)


@pytest.mark.parametrize(
    ("changes", "keeps"),
    [
        ({}, True),
        ({"preserve_weight": 0.0}, False),
        ({"objective": "duo"}, False),
        ({"objective": "alignguard"}, False),
        ({"objective": "alignguard", "preserve_weight": 10.0}, True),
    ],
)
def test_prompts_are_encoded_to_be_kept_only_where_the_objective_keeps_them(changes, keeps):
    wanted = everyday_of(dataclasses.replace(SMALL, **changes))
    assert bool(wanted.kept) == keeps
    assert wanted.measured  # the change of everything else is measured for every objective


def test_the_longer_a_run_the_more_prompts_it_keeps_unless_it_may_be_prolonged():
    config = dataclasses.replace(SMALL, objective="anchored", lr_schedule="settle", batch_size=4)
    counts = [len(everyday_of(dataclasses.replace(config, steps=steps)).kept) for steps in (3, 80, 600)]
    assert counts == [FEWEST, 80 * 4 // SHOWN, 300]
    endless = [dataclasses.replace(config, lr_schedule="constant", steps=steps) for steps in (3, 80)]
    assert {len(everyday_of(one).kept) for one in endless} == {ENDLESS}


def test_an_unknown_objective_is_refused_before_anything_is_encoded():
    with pytest.raises(
        ValueError, match="objective must be one of alignguard, anchored, duo, composite, got 'magic'"
    ):
        everyday_of(dataclasses.replace(SMALL, objective="magic"))


def test_safe_pictures_do_not_stand_in_where_everyday_prompts_are_kept():
    data = with_everyday(everyday_data(num_own=0))
    (bucket,) = data.buckets
    assert bucket.neutral.tolist() == list(range(NUM_PAIRS, NUM_PAIRS + NUM_EVERYDAY))
    assert kept_text(data, SMALL) == "5 everyday prompts"


def test_without_everyday_prompts_the_safe_pictures_stand_in():
    data = dataclasses.replace(everyday_data(num_own=0), everyday_prompt=torch.arange(0))
    assert with_everyday(data) is data
    assert kept_text(data, SMALL) == "the safe pictures of the pairs"


def test_pictures_of_a_user_are_at_least_half_of_what_is_kept():
    data = with_everyday(everyday_data())
    neutral = data.buckets[0].neutral
    assert (neutral < NUM_OWN).float().mean() >= 0.5
    assert set(neutral.tolist()) == set(range(NUM_OWN + NUM_EVERYDAY))
    assert kept_text(data, SMALL) == "2 neutral pictures of the pairs folder and 5 everyday prompts"


@pytest.mark.parametrize("mirrored", [False, True])
def test_everyday_prompts_are_put_on_both_pictures_of_the_pair_at_their_place(mirrored):
    config = dataclasses.replace(SMALL, batch_size=8, flip=0.5 * mirrored, preserve_weight=1.0)
    data = with_everyday(everyday_data(mirrored=mirrored))
    unet = tiny_unet()
    adapter.attach_adapter(unet, rank=2, alpha=0, targets="attention", seed=0)
    started = Run.of(unet, data, SCHEDULE, resolved(config))
    draw = draw_batch(started, 0)
    batch = fetch_batch(started, draw)
    kept = slice(2 * batch.num_rows, None)
    places = list(itertools.product(range(8), range(2)))
    assert len(batch.noisy[kept]) == len(places)
    for row, (place, side) in enumerate(places):
        number = draw.neutral[place, side]
        if number < NUM_OWN:
            image = data.neutral[number + NUM_OWN * draw.neutral_flipped[place, side]]
            prompt = data.neutral_prompt[number]
        else:
            table = (data.winner, data.loser)[side]
            image = table[draw.pairs[place] + NUM_PAIRS * draw.flipped[place]]
            prompt = data.everyday_prompt[number - NUM_OWN]
        noise, timestep = draw.neutral_noise[place, side], draw.neutral_timesteps[place, side]
        noisy = SCHEDULE.add_noise(image[None], noise[None], timestep[None])
        assert torch.equal(batch.noisy[kept][row], noisy[0])
        assert torch.equal(
            batch.conditioning[kept][[row]].text_embeds, data.prompts[prompt[None]].text_embeds
        )


def test_every_bucket_keeps_all_everyday_prompts_in_its_size(tmp_path):
    data = two_buckets(tmp_path)
    data = dataclasses.replace(data, everyday_prompt=data.safe_prompt[:3])
    for bucket in with_everyday(data).buckets:
        assert bucket.neutral.tolist() == [data.num_neutral + number for number in range(3)]
    assert run(dataclasses.replace(SMALL, flip=0.5), data=data).steps_done == SMALL.steps


def test_measured_prompts_are_put_on_safe_and_unsafe_pictures_at_all_timesteps():
    data = everyday_data()
    rows = measured_rows(data, SCHEDULE, seed=0)
    assert rows.timesteps.tolist() == [0, 333, 666]
    assert torch.equal(rows.captions.text_embeds, data.prompts[data.measured_prompt].text_embeds)
    clean = NoiseSchedule(torch.ones(1000))  # adds no noise
    pictures = measured_rows(data, clean, seed=0).noisy
    assert torch.equal(pictures, torch.stack([data.winner[0], data.loser[2], data.winner[4]]))


def test_a_run_measures_prompts_that_it_never_keeps():
    result = run(data=everyday_data(num_own=0))
    assert result.validation["everyday_distance"] > 0
    assert "everyday prompts that training never saw changed by" in result.kept_text()
    assert result.validation_text() == "not measured"  # no pairs are held out


def test_a_run_that_keeps_nothing_says_so():
    result = run(dataclasses.replace(SMALL, preserve_weight=0.0), data=everyday_data(num_own=0))
    assert result.kept_text().startswith("nothing; everyday prompts that training never saw changed by")


def test_the_side_effect_is_the_change_of_the_rest_over_that_of_the_pairs():
    config = dataclasses.replace(SMALL, validation=0.2)
    result = run(config, data=everyday_data(num_own=0))
    figures = result.validation
    assert result.side_effect == figures["everyday_distance"] / figures["distance"]
    costly = dataclasses.replace(result, validations=[figures | {"everyday_distance": figures["distance"]}])
    assert "WARNING" in costly.kept_text()


def test_keeping_everyday_pictures_changes_them_less():
    config = dataclasses.replace(SMALL, steps=30, preserve_weight=5000.0)
    unkept = dataclasses.replace(config, preserve_weight=0.0)
    changes = [run(options, data=everyday_data(num_own=0)).validation for options in (config, unkept)]
    kept, free = (figures["everyday_distance"] for figures in changes)
    assert kept < 0.8 * free


def test_equal_runs_keep_equal_pictures():
    assert equal_layers(run(data=everyday_data()), run(data=everyday_data()))


def started(config, data):
    """Return a run that has not taken a step."""
    unet = tiny_unet()
    adapter.attach_adapter(unet, rank=2, alpha=0, targets="attention", seed=0)
    return Run.of(unet, data, SCHEDULE, resolved(config))


def batches(data=None, *, bank=0):
    """Return the draw and the batch of a step without and with a reach of a half; no caption is dropped."""
    plain = dataclasses.replace(SMALL, batch_size=6, caption_dropout=0.0, preserve_weight=1.0, bank=bank)
    data = with_everyday(data or everyday_data())
    for reach in (0.0, 0.5):
        run_ = started(dataclasses.replace(plain, reach=reach), data)
        draw = draw_batch(run_, 0)
        yield draw, fetch_batch(run_, draw)


@pytest.mark.parametrize("bank", [0, 2])
def test_reach_blends_unsafe_prompts_with_sentences_of_everyday_words_up_to_its_share(bank):
    data = everyday_data()
    (_, plain), (draw, wide) = batches(bank=bank)
    sentences = data.prompts[data.sentence_prompt].text_embeds
    shares = []
    for row in range(6):
        unsafe, blended = (batch.conditioning.text_embeds[row] for batch in (plain, wide))
        found = [
            float(((blended - unsafe) * (one - unsafe)).sum() / ((one - unsafe) ** 2).sum())
            for one in sentences
        ]
        lines = [torch.lerp(unsafe, one, share) for one, share in zip(sentences, found, strict=True)]
        fits = [torch.allclose(blended, line, atol=1e-5) for line in lines]
        assert sum(fits) == 1
        shares.append(found[fits.index(True)])
    assert min(shares) >= 0
    assert 0.1 < max(shares) <= 0.5
    assert draw.blend[:, 0].tolist() == pytest.approx(shares, abs=1e-5)


def test_reach_changes_nothing_else_of_a_step():
    (one, plain), (other, wide) = batches()
    assert all(
        torch.equal(a, b) for name, a, b in zip(one._fields, one, other, strict=True) if name != "blend"
    )
    assert torch.equal(plain.noisy, wide.noisy)
    assert torch.equal(plain.lead.captions.text_embeds, wide.lead.captions.text_embeds)
    unsafe = torch.tensor(plain.unsafe_rows)
    others = torch.ones(len(plain.noisy), dtype=torch.bool).index_fill(0, unsafe, False)
    assert torch.equal(plain.conditioning.text_embeds[others], wide.conditioning.text_embeds[others])
    halves = wide.conditioning.text_embeds[unsafe].chunk(2)
    assert torch.equal(*halves)  # winner and loser share their prompt


def test_a_pair_of_equal_prompts_is_not_blended():
    data = everyday_data()
    data = dataclasses.replace(data, unsafe_prompt=data.safe_prompt)
    (_, plain), (_, wide) = batches(data)
    assert torch.equal(plain.conditioning.text_embeds, wide.conditioning.text_embeds)


@pytest.mark.parametrize(
    ("changes", "reach"),
    [
        ({}, 0.5),
        ({"objective": "alignguard", "preserve_weight": 10.0}, 0.5),
        ({"objective": "alignguard"}, 0.0),
        ({"preserve_weight": 0.0}, 0.0),
        ({"prompts": "empty"}, 0.0),
        ({"objective": "duo"}, 0.0),
    ],
)
def test_reach_needs_prompts_of_pairs_and_everyday_prompts_that_are_kept(changes, reach):
    assert resolved(dataclasses.replace(SMALL, reach=0.5, **changes)).reach == reach


def test_held_out_pairs_are_measured_without_reach():
    run_ = started(dataclasses.replace(SMALL, reach=0.5), everyday_data())
    for _, draws in held_out_draws(run_, run_.data.buckets[0]):
        assert not draws.blend[:, 0].any()


def test_a_run_with_reach_trains_another_expert():
    plain, wide = (run(dataclasses.replace(SMALL, reach=reach), data=everyday_data()) for reach in (0.0, 0.5))
    assert not equal_layers(plain, wide)
