"""Memory and operations of a computation, found from shapes alone."""

import torch

from training.trainer.needs import CountedOperations, needs_of


def test_the_peak_is_the_largest_size_of_all_tensors_alive_at_one_time():
    weight = torch.nn.Parameter(torch.ones(1000))

    def compute(fake):
        x = fake(torch.ones(1000))
        y = x * weight  # 4000 bytes
        z = y + 1  # 4000 more
        del y
        z.exp_()  # in place: none
        z[:10].sum()  # a view, and 4 bytes

    assert needs_of(compute).peak_bytes == 8000
    assert weight.grad is None


def test_a_saved_activation_counts_until_the_backward_pass_has_used_it():
    weight = torch.nn.Parameter(torch.ones(1000))

    def compute(fake):
        y = fake(torch.ones(1000)) * weight
        z = y.exp().sum()  # exp keeps its result
        del y
        torch.autograd.grad(z, [weight])

    # after `del`: exp's result and the sum; the backward pass adds a gradient or two of the same size
    assert 8000 < needs_of(compute).peak_bytes <= 16_100


def test_operations_of_matrix_products_and_convolutions_follow_the_formulas():
    def compute(fake):
        x, weight = fake(torch.ones(3, 5)), fake(torch.ones(5, 7))
        x @ weight
        torch.nn.functional.conv2d(fake(torch.ones(1, 2, 4, 4)), fake(torch.ones(6, 2, 3, 3)), padding=1)

    assert needs_of(compute).operations == 2 * 3 * 5 * 7 + 2 * 6 * 2 * 9 * 16


def test_operations_of_attention_are_counted_on_the_cpu_too():
    heads = torch.ones(1, 2, 16, 8, requires_grad=True)
    with CountedOperations() as forward:
        out = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)
    assert forward.total == 2 * (2 * 2 * 16 * 16 * 8)
    with CountedOperations() as backward:
        out.sum().backward()
    assert backward.total == 2.5 * forward.total
