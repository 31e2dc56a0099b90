"""Drawing for the nodes, on a host that seeds the global random generator, as ComfyUI's noise does."""

import sys
import types

import pytest
import torch

from tiny_commands import global_random_state, seed_globally


class Model:
    """A CLIP and a VAE whose pictures are what was sampled."""

    def get_model_object(self, name):
        return types.SimpleNamespace(spacial_downscale_ratio=8)

    def tokenize(self, text, **_):
        return text

    def encode_from_tokens_scheduled(self, tokens):
        return tokens

    def decode(self, latents):
        return latents[:, :3].movedim(1, -1).sigmoid()

    def encode(self, image):
        return image.movedim(-1, 1).new_zeros(1, 4, 8, 8)


def fake_comfy():
    modules = {name: types.ModuleType(name) for name in ("comfy", "comfy.sample", "comfy.samplers")}
    modules["comfy.model_management"] = types.ModuleType("comfy.model_management")
    modules["comfy.samplers"].SAMPLER_NAMES = modules["comfy.samplers"].SCHEDULER_NAMES = ["ancestral"]
    host = modules["comfy.sample"]
    host.fix_empty_latent_channels = lambda model, latents: latents
    host.prepare_noise = lambda latents, seed: torch.randn(latents.shape, generator=torch.manual_seed(seed))
    host.sample = lambda model, noise, **_: noise + torch.randn(noise.shape)  # as ancestral samplers draw
    for name in list(modules)[1:]:
        setattr(modules["comfy"], name.partition(".")[2], modules[name])
    return modules


@pytest.fixture
def draw(pack, monkeypatch):
    for name, module in fake_comfy().items():
        monkeypatch.setitem(sys.modules, name, module)
    border = types.ModuleType("pack.alignguard_nodes.host")
    border.__path__ = [str(next(iter(pack("alignguard_nodes").__path__))) + "/host"]
    monkeypatch.setitem(sys.modules, border.__name__, border)
    sampling = pack("alignguard_nodes.host.sampling")
    settings = sampling.Sampling("ancestral", "ancestral", steps=2, cfg=3.0, resolution=64)
    return sampling.HostDraw(Model(), Model(), Model(), settings)


@pytest.mark.parametrize("source", [None, torch.zeros(1, 3, 64, 64)], ids=["noise", "picture"])
def test_drawing_leaves_the_global_random_state_alone_and_does_not_depend_on_it(draw, source):
    pictures = []
    for seed in (1, 2):
        seed_globally(seed)
        before = global_random_state()
        pictures.append(draw("a kite", seed=7, source=source))
        assert global_random_state() == before
    assert torch.equal(*pictures)
    assert not torch.equal(pictures[0], draw("a kite", seed=8, source=source))
