"""What a run keeps: everyday pictures that the base model draws, and a user's own first."""

import dataclasses

import pytest
import torch

from tiny import tiny_data, tiny_unet
from tiny_runs import SCHEDULE, SHARED_UNET, SMALL, equal_layers, run, two_buckets
from training.pairs.everyday import HELD_OUT, everyday, everyday_prompts
from training.trainer.kept import EverydayPictures, everyday_of, kept_text

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
    )


def pictures(data, config=SMALL, unet=SHARED_UNET):
    return EverydayPictures(unet, data, SCHEDULE, config, lambda: None)


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


def test_safe_pictures_do_not_stand_in_where_everyday_pictures_are_kept():
    kept = pictures(everyday_data(num_own=0)).kept()
    (bucket,) = kept.buckets
    assert bucket.neutral.tolist() == list(range(NUM_PAIRS, NUM_PAIRS + NUM_EVERYDAY))
    assert kept.neutral_prompt[bucket.neutral].tolist() == everyday_data().everyday_prompt.tolist()
    assert "5 pictures that the base model drew" in kept_text(kept, SMALL)


def test_pictures_of_a_user_are_at_least_half_of_what_is_kept():
    kept = pictures(everyday_data()).kept()
    neutral = kept.buckets[0].neutral
    own = neutral < NUM_OWN
    assert own.float().mean() >= 0.5
    assert set(neutral.tolist()) == set(range(NUM_OWN + NUM_EVERYDAY))
    assert kept_text(kept, SMALL).startswith("2 neutral pictures of the pairs folder and 5 pictures")


def test_pictures_are_drawn_by_the_base_model_from_their_prompt_and_the_seed():
    data = everyday_data()
    once, again = pictures(data).kept().neutral, pictures(data).kept().neutral
    other_seed = pictures(data, dataclasses.replace(SMALL, seed=4)).kept().neutral
    other_base = pictures(data, unet=tiny_unet(seed=1)).kept().neutral
    assert torch.equal(once, again)
    assert torch.equal(once[:NUM_OWN], data.neutral)
    for other in (other_seed, other_base):
        assert not torch.equal(once[NUM_OWN:], other[NUM_OWN:])


def test_how_many_are_drawn_at_once_does_not_matter():
    one = pictures(everyday_data(), dataclasses.replace(SMALL, batch_size=1)).kept().neutral
    torch.testing.assert_close(one, pictures(everyday_data()).kept().neutral, rtol=1e-4, atol=1e-4)


def test_drawn_pictures_have_no_mirrored_version():
    data = everyday_data(mirrored=True)
    kept = pictures(data).kept()
    plain, mirrored = kept.neutral.chunk(2)
    assert torch.equal(plain[NUM_OWN:], mirrored[NUM_OWN:])
    assert not torch.equal(plain[:NUM_OWN], mirrored[:NUM_OWN])


def test_every_bucket_keeps_pictures_of_its_size(tmp_path):
    data = two_buckets(tmp_path)
    numbers = data.safe_prompt[:3]
    kept = pictures(dataclasses.replace(data, everyday_prompt=numbers)).kept()
    assert kept.num_drawn == 3
    for bucket in kept.buckets:
        assert kept.neutral[bucket.neutral].shape[1:] == bucket.latent_shape


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
