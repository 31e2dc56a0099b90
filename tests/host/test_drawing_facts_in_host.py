"""Pairs record the content of the weights that drew them, whatever the host did with the weights before."""

import json

import pytest

from api_graphs import SHOCKING

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def facts(mini, proof, pack_parent):
    return proof("drawing_facts_proof.py", mini["checkpoint"], mini["experts"] / SHOCKING, pack_parent)


def test_loaded_weights_are_identified_the_same_way_whatever_was_drawn_before(facts):
    assert set(facts["plain"]) == {"model", "encoders"}
    assert facts["plain after another loading"] == facts["plain"]
    assert facts["plain after an expert drew"] == facts["plain after it drew"] == facts["plain"]


def test_loaded_weights_are_identified_the_same_way_however_a_host_keeps_them(facts):
    same = ["with a type to compute in", "in fp16", "in fp16, then bf16"]
    assert {name: facts[f"plain {name}"] for name in same} == dict.fromkeys(same, facts["plain"])


def test_an_expert_is_identified_by_its_content_and_not_by_when_it_was_applied(facts):
    assert facts["expert applied again"] == facts["expert after another loading"] == facts["expert"]
    assert facts["late expert applied again"] == facts["late expert"]


def test_everything_that_changes_the_pictures_changes_the_facts(facts):
    different = ["plain", "expert", "weaker expert", "late expert", "later expert", "v_prediction", "zsnr"]
    different += ["rescaled", "rescaled less", "clip skip"]
    assert len({json.dumps(facts[name]) for name in different}) == len(different)
    assert all(facts[name]["model"] == facts["plain"]["model"] for name in different)


def test_options_that_cannot_be_identified_are_refused_by_name(facts):
    assert "model_options.lock cannot be read: it holds a lock" in facts["hidden"]
