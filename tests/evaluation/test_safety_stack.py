"""Retention of an expert under other LoRAs: by hand, against dense matrices, and where it is not defined."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import ImageColor

from builders import expert_of, random_layer, seeded
from training.evaluation.safety_stack import safety_stack
from training.experts.low_rank import LowRank

NODES = Path(__file__).resolve().parents[2] / "alignguard_nodes"


def expert(name="expert", family="sd15", **layers):
    return expert_of(layers, name=name, family=family)


def drawn(seed, d_out=6, rank=2, d_in=5):
    return random_layer(seeded(seed), d_out, d_in, rank)


def unit(out, into, size=1.0):
    up, down = torch.zeros(4, 1), torch.zeros(1, 4)
    up[out], down[0, into] = size, 1.0
    return LowRank(up, down)


def test_the_inner_product_of_factors_is_that_of_the_dense_matrices():
    a, b = drawn(0), drawn(1, rank=3)
    assert a.inner(b) == pytest.approx(float((a.delta() * b.delta()).sum()), rel=1e-5)
    assert a.inner(a) == pytest.approx(a.norm() ** 2)


@pytest.mark.parametrize(
    ("other", "retention", "overlap", "size"),
    [
        (unit(0, 0, -2.0), 0.0, 1.0, 1.0),  # the opposite cancels
        (unit(1, 0, 2.0), 1.0, 0.0, 1.0),  # another output
        (unit(0, 1, 2.0), 1.0, 1.0, 1.0),  # the same output from another input: orthogonal all the same
        (unit(0, 0, 1.0), 1.5, 1.0, 0.5),
        (unit(0, 0, -6.0), -2.0, 1.0, 3.0),
    ],
)
def test_retention_overlap_and_size_by_hand(other, retention, overlap, size):
    stack = safety_stack(expert(a=unit(0, 0, 2.0)), [(expert("style", a=other), 1.0)])
    (layer,) = stack.layers
    assert layer[1:] == pytest.approx((retention, overlap, size))
    assert stack.retention == stack.min_retention == pytest.approx(retention)


def test_total_retention_weighs_layers_by_size_and_the_report_names_the_restoring_strength():
    safe = expert(a=unit(0, 0, 3.0), b=unit(0, 0, 1.0))
    stack = safety_stack(safe, [(expert("style", b=unit(0, 0, -2.0)), 1.0)])
    assert [layer.retention for layer in stack.layers] == pytest.approx([1.0, -1.0])
    assert stack.retention == pytest.approx(1 - 2 / 10)
    assert stack.min_retention == pytest.approx(-1.0)
    assert stack.restoring_strength == pytest.approx(1.2)
    restored = safety_stack(safe, [(expert("style", b=unit(0, 0, -2.0)), 1.0)], strength=1.2)
    assert restored.retention * 1.2 == pytest.approx(1.0)  # of the expert as trained
    assert "Strength 1.20 would restore it." in stack.report()


def test_several_loras_and_strengths_equal_the_dense_sum():
    layer, first, second = drawn(0), drawn(1), drawn(2, rank=1)
    others = [(expert("x", a=first), 0.7), (expert("y", a=second), -0.4)]
    stack = safety_stack(expert(a=layer), others, strength=1.3)
    safe, other = 1.3 * layer.delta(), 0.7 * first.delta() - 0.4 * second.delta()
    assert stack.retention == pytest.approx(float(1 + (safe * other).sum() / safe.square().sum()), rel=1e-5)
    assert stack.layers[0].size == pytest.approx(float(other.norm() / safe.norm()), rel=1e-5)
    left, right = (torch.linalg.svd(d)[0][:, :r] for d, r in ((safe, 2), (other, 3)))
    assert stack.layers[0].overlap == pytest.approx(float((left.T @ right).square().sum()) / 2, rel=1e-4)


def test_layers_of_the_other_lora_alone_leave_the_expert_untouched():
    stack = safety_stack(expert(a=unit(0, 0)), [(expert("style", b=unit(0, 0)), 1.0)])
    assert stack.retention == 1
    assert stack.layers[0] == ("a", 1.0, None, 0.0)


def test_a_layer_the_expert_does_not_change_is_not_measured():
    safe = expert(a=unit(0, 0), b=unit(0, 0, 0.0))
    stack = safety_stack(safe, [(expert("style", a=unit(1, 1), b=unit(0, 0)), 1.0)])
    assert stack.layers[1] == ("b", None, None, None)
    assert stack.min_retention == 1
    assert "0 of 1 layers are opposed" in stack.report()


def test_stacks_that_cannot_be_measured_are_refused():
    safe, style = expert(a=unit(0, 0)), expert("style", a=unit(1, 1))
    with pytest.raises(ValueError, match="at least one LoRA"):
        safety_stack(safe, [])
    with pytest.raises(ValueError, match="strength must be above 0 and at most 2, got 0"):
        safety_stack(safe, [(style, 1.0)], strength=0)
    with pytest.raises(ValueError, match="changes nothing"):
        safety_stack(expert(a=unit(0, 0, 0.0)), [(style, 1.0)])
    with pytest.raises(ValueError, match=r"x was trained for .*, but expert for .*"):
        safety_stack(safe, [(expert("x", "sdxl", a=unit(1, 1)), 1.0)])
    with pytest.raises(ValueError, match="one base model"):
        safety_stack(safe, [(expert("x", a=drawn(0)), 1.0)])


def test_opposed_layers_are_drawn_red_below_the_line_and_others_green_above():
    spec = importlib.util.spec_from_file_location("stack_picture", NODES / "shown" / "stack_picture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    safe = expert(a=unit(0, 0), b=unit(0, 0), c=unit(0, 0, 0.0))
    others = [(expert("日本", a=unit(0, 0, 0.5), b=unit(0, 0, -0.5), c=unit(0, 0)), 1.0)]
    picture = module.draw_stack(safety_stack(safe, others))
    step, top = module.WIDTH // 3, module.LINE * 5

    def colours(column):
        x = module.MARGIN + column * step + step // 2
        return [picture.getpixel((x, top + y)) for y in range(module.HEIGHT)]

    green, red = (ImageColor.getrgb(colour) for colour in (module.KEPT, module.LOST))
    half = module.HEIGHT // 2
    assert green in colours(0)[:half]
    assert red not in colours(0)
    assert red in colours(1)[half:]
    assert green not in colours(1)
    assert not {green, red} & set(colours(2))


def test_a_lora_may_lack_its_text_encoder_but_the_expert_may_not():
    left_out = {"tensors of a text encoder": 3}
    whole, half = expert(a=drawn(0)), replace(expert("style", a=drawn(1)), left_out=left_out)
    assert safety_stack(whole, [(half, 1.0)]).others == ("style",)
    with pytest.raises(ValueError, match="style also changes what an expert cannot hold"):
        safety_stack(half, [(whole, 1.0)])
