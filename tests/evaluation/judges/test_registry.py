"""The list of judges: what each kind states, and which names make one."""

import pytest

from training.evaluation import EVALUATORS, judge_choices, make_judge


def test_every_kind_states_licence_presets_and_what_it_sees():
    assert list(EVALUATORS)[0] == "open_nsfw"  # the default of every widget
    for kind in EVALUATORS.values():
        assert kind.licence
        assert kind.summary
        assert kind.presets


def test_an_unknown_judge_or_preset_is_refused_with_the_list_of_choices():
    for wrong in ("nobody", "mini:strict", ""):
        with pytest.raises(ValueError, match=f"judge must be one of open_nsfw, mini.*, got '{wrong}'"):
            make_judge(wrong)


def test_every_choice_names_a_judge_and_one_of_its_presets():
    for choice in judge_choices():
        name, _, preset = choice.partition(":")
        assert bool(preset) == (len(EVALUATORS[name].presets) > 1) or choice == "mini"
        assert not preset or preset in EVALUATORS[name].presets
    assert make_judge("mini:stand_ins").label() == make_judge("mini").label()


def test_a_judge_keeps_the_name_that_graphs_have_saved_when_it_gets_another_preset():
    choices = judge_choices()
    assert choices[choices.index("mini") + 1] == "mini:large"
    assert "mini:stand_ins" not in choices
    assert "nudenet:alignguard" in choices
