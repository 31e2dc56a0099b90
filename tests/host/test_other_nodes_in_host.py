"""An expert beside other nodes draws what the host draws with its own loader or hooks for the same file."""

import pytest

from api_graphs import HATE, SHOCKING

pytestmark = pytest.mark.host

ROUNDING = 1e-4  # fp32 sums in another order, over six steps
CHANGE = 20 * ROUNDING  # what the other node changes at least


@pytest.fixture(scope="module")
def results(mini, proof, pack_parent):
    experts = [mini["experts"] / name for name in (SHOCKING, HATE)]
    return proof("other_nodes_proof.py", mini["checkpoint"], *experts, pack_parent)


@pytest.mark.parametrize(
    ("node", "ways"),
    [
        ("orders", ["first", "between", "last"]),
        ("freeu", ["behind", "before", "behind a part", "before a part"]),
        ("controlnet", ["whole", "part"]),
        ("hooks", ["whole", "part"]),
    ],
)
def test_an_expert_beside_it_draws_what_the_host_draws(results, node, ways):
    assert list(results[node]) == ways
    for way, result in results[node].items():
        assert result["from host"] < ROUNDING < CHANGE < result["from alone"], (way, result)
