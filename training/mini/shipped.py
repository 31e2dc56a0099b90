"""The shipped weights: a narrow UNet, the autoencoder, the judge and seven narrow experts, all fp16."""

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ..experts.low_rank import LowRank
from ..rules.categories import CATEGORIES
from ..system.tensors import open_tensors
from . import architecture
from .judge import Judge

FOLDER = Path(__file__).with_name("weights")


def load_unet():
    """Return the narrow UNet, 64 channels, fp32, frozen."""
    return architecture.load_unet(_tensors("unet"))


def load_autoencoder():
    """Return the autoencoder as diffusers' AutoencoderTiny, fp32, frozen."""
    autoencoder = architecture.build_autoencoder(architecture.AUTOENCODER_WIDTH)
    autoencoder.load_state_dict(_tensors("autoencoder"))
    return autoencoder.eval().requires_grad_(False)


def load_judge(path: Path = FOLDER / "judge.safetensors") -> Judge:
    """Return the judge, fp32, frozen, from the shipped file or from one that `build_mini` wrote."""
    judge = Judge()
    judge.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    return judge.eval().requires_grad_(False)


def load_expert_metadata() -> dict[str, dict[str, str]]:
    """Return the metadata of each shipped expert: category -> strings for its file."""
    with open_tensors(FOLDER / "experts.safetensors") as state:
        return {
            category: json.loads(text) for category, text in state.metadata.items() if category in CATEGORIES
        }


def load_expert_layers() -> dict[str, dict[str, LowRank]]:
    """Return the shipped experts of the narrow UNet: category -> module path -> LoRA layer."""
    tensors = _tensors("experts")
    experts: dict[str, dict[str, LowRank]] = {category: {} for category in CATEGORIES}
    for name, up in tensors.items():
        category, _, rest = name.partition("/")
        if rest.endswith(".up"):
            module = rest.removesuffix(".up")
            experts[category][module] = LowRank(up=up, down=tensors[f"{category}/{module}.down"])
    return experts


def _tensors(name: str) -> dict[str, Tensor]:
    return {key: tensor.float() for key, tensor in load_file(FOLDER / f"{name}.safetensors").items()}
