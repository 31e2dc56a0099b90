"""Draw with an expert beside other nodes of the host: LoRAs, FreeU, a ControlNet, hooks.

    python other_nodes_proof.py COMFYUI_FOLDER CHECKPOINT EXPERT OTHER_EXPERT PACK_PARENT

Prints one line of JSON. Every latent is compared with that of the host's own nodes for the same file. The
ControlNet is one as trainings begin with: a copy of the model's encoder, with random instead of zero ends.
"""

import json
import sys
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from ranged_proof import CHECKPOINT, EXPERT, OTHER, RANGES, difference, drawn, hooked, ranged

WHOLE, PART = (0.0, 1.0), RANGES["middle"]  # importing them has set the options of the host

import comfy.controlnet
import comfy.sd
import comfy.utils
from comfy_extras.nodes_freelunch import FreeU_V2
from nodes import ControlNetApplyAdvanced

STRENGTH = 0.8  # of the expert, the default of `ranged`
ENCODER = ("time_embed.", "input_blocks.", "middle_block.")
HINT_WIDTHS = (3, 16, 16, 32, 32, 96, 96, 256)  # of the convolutions that read the picture of a ControlNet


def main() -> None:
    """Compare an expert on all and on a part of the sampling beside each kind of node."""
    model, clip, *_ = comfy.sd.load_checkpoint_guess_config(CHECKPOINT, output_vae=False)
    with torch.inference_mode():
        conds = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a white skull", "")]
        drawing = Drawing(model, conds)
        results = {"orders": drawing.orders(), "freeu": drawing.beside_freeu()}
        results |= {"controlnet": drawing.with_controlnet(), "hooks": drawing.with_hooks()}
    sys.stdout.write(json.dumps(results) + "\n")


def loaded(model, file: str, strength: float):
    """Return the MODEL with a LoRA by the stock loader."""
    return comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(file), strength, 0.0)[0]


def freeu(model):
    """Return a MODEL with the host's FreeU at its defaults, which acts on blocks of two and four widths.

    The mini model's blocks are all of one width, so FreeU is told half of it.
    """
    config, factors = model.model.model_config.unet_config, (1.3, 1.4, 0.9, 0.2)
    width = config["model_channels"]
    config["model_channels"] = width // 2
    try:  # a node of the newer kind runs without an instance
        run = getattr(FreeU_V2, "execute", None) or FreeU_V2().patch
        return run(model, *factors)[0]
    finally:
        config["model_channels"] = width


def random_controlnet():
    """Return a ControlNet for the mini model, from the layout of the first ones (`control_model.*`)."""
    prefix = "model.diffusion_model."
    weights = comfy.utils.load_torch_file(CHECKPOINT)
    unet = {key.removeprefix(prefix): weights[key] for key in weights if key.startswith(prefix)}
    state = {key: value for key, value in unet.items() if key.startswith(ENCODER)}
    generator = torch.Generator().manual_seed(5)

    def add(name: str, width_in: int, width_out: int, size: int) -> None:
        weight = torch.randn(width_out, width_in, size, size, generator=generator)
        state[f"{name}.weight"] = (weight * (width_in * size**2) ** -0.5).half()
        state[f"{name}.bias"] = torch.zeros(width_out).half()

    width = len(state["input_blocks.0.0.weight"])  # all blocks of the mini model have this one
    for block in {int(key.split(".")[1]) for key in state if key.startswith("input_blocks.")}:
        add(f"zero_convs.{block}.0", width, width, 1)
    add("middle_block_out.0", width, width, 1)
    for number, (width_in, width_out) in enumerate(pairwise((*HINT_WIDTHS, width))):
        add(f"input_hint_block.{2 * number}", width_in, width_out, 3)
    return comfy.controlnet.load_controlnet_state_dict({f"control_model.{key}": state[key] for key in state})


class Drawing:
    """Latents of the mini model with an expert, and with the host's own nodes instead."""

    def __init__(self, model, conds: list):
        self.model, self.conds = model, conds
        self.whole, self.part = ranged(model, WHOLE), ranged(model, PART)
        self.stock, self.hooks = loaded(model, EXPERT, STRENGTH), hooked(conds, (EXPERT, STRENGTH, PART))

    @cache  # noqa: B019 - lives as long as the process
    def alone(self, is_whole: bool) -> Tensor:
        """Return the latent with the expert and nothing beside it."""
        return drawn(self.whole if is_whole else self.part, self.conds)

    def compared(self, ours: Tensor, theirs: Tensor, is_whole: bool) -> dict:
        """Return how far the latent is from the host's own, and from one of the expert alone."""
        return {"from host": difference(ours, theirs), "from alone": difference(ours, self.alone(is_whole))}

    def orders(self) -> dict:
        """Put the expert before, between and behind two LoRAs; the stock loader puts it between them."""

        def first(model):
            return loaded(model, OTHER, 0.5)

        def second(model):
            return loaded(model, EXPERT, 0.3)  # the same file once more is a LoRA as any other

        def expert(model):
            return ranged(model, WHOLE)

        orders = {"first": (expert, first, second), "between": (first, expert, second)}
        theirs = drawn(second(loaded(first(self.model), EXPERT, STRENGTH)), self.conds)
        results = {}
        for name, steps in (orders | {"last": (second, first, expert)}).items():
            model = self.model
            for step in steps:
                model = step(model)
            results[name] = self.compared(drawn(model, self.conds), theirs, True)
        return results

    def beside_freeu(self) -> dict:
        """Put FreeU behind the expert and before it."""
        of_stock, of_hooks = drawn(freeu(self.stock), self.conds), drawn(freeu(self.model), self.hooks)
        ours = {
            "behind": (freeu(self.whole), of_stock, True),
            "before": (ranged(freeu(self.model), WHOLE), of_stock, True),
            "behind a part": (freeu(self.part), of_hooks, False),
            "before a part": (ranged(freeu(self.model), PART), of_hooks, False),
        }
        return {name: self.compared(drawn(m, self.conds), theirs, w) for name, (m, theirs, w) in ours.items()}

    def with_controlnet(self) -> dict:
        """Add a ControlNet to the conditionings, which carry hooks or none."""
        picture, net = torch.tensor([0.2, 0.4, 0.8]).expand(1, 64, 64, 3), random_controlnet()

        def controlled(conds: list) -> list:
            return ControlNetApplyAdvanced().apply_controlnet(*conds, net, picture, 1.0, 0.0, 1.0)[:2]

        plain = controlled(self.conds)
        of_hooks = drawn(self.model, controlled(self.hooks))
        return {
            "whole": self.compared(drawn(self.whole, plain), drawn(self.stock, plain), True),
            "part": self.compared(drawn(self.part, plain), of_hooks, False),
        }

    def with_hooks(self) -> dict:
        """Add another LoRA by hooks."""
        other = (OTHER, 0.5, WHOLE)
        lora, both = hooked(self.conds, other), hooked(self.conds, other, (EXPERT, STRENGTH, PART))
        return {
            "whole": self.compared(drawn(self.whole, lora), drawn(self.stock, lora), True),
            "part": self.compared(drawn(self.part, lora), drawn(self.model, both), False),
        }


main()
