"""The weights in the repository: of each world a narrow UNet, the autoencoder and the judge, all fp16.

The small world also has seven narrow experts, the large one the token rows that carry meaning.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..experts.low_rank import LowRank
from ..rules.categories import CATEGORIES
from ..system.tensors import open_tensors
from . import architecture
from .judge import Classifier, Judge

FOLDER = Path(__file__).with_name("weights")
PAIRS_VERSION = b"pairs without neutral pictures"  # changed when the same weights give other pairs

TokenRows = tuple[Tensor, Tensor]  # token ids (n,), rows of the token table (n, 768)


@dataclass(frozen=True)
class Shipped:
    """The weights of one world.

    Attributes:
        world: its name.
        folder: where they are.
        recipe: module that trains them, as `python -m` takes it.
        new_judge: returns an untrained judge.
        rows_of: turns the tensors of `tokens.safetensors` into token rows; None: the world has no such file.
    """

    world: str
    folder: Path
    recipe: str
    new_judge: Callable[[], Classifier]
    rows_of: Callable[[Mapping[str, Tensor]], TokenRows] | None = None

    def load_unet(self):
        """Return the narrow UNet, 64 channels, fp32, frozen."""
        return architecture.load_unet(self._tensors("unet"))

    def load_autoencoder(self):
        """Return the autoencoder as diffusers' AutoencoderTiny, fp32, frozen."""
        with torch.device("meta"):  # where nothing is drawn from the global random generator
            autoencoder = architecture.build_autoencoder(architecture.AUTOENCODER_WIDTH)
        autoencoder.load_state_dict(self._tensors("autoencoder"), assign=True)
        return autoencoder.eval().requires_grad_(False)

    def load_judge(self, path: Path | None = None) -> Classifier:
        """Return the judge, fp32, frozen, from the shipped file or from one that `build_mini` wrote."""
        with torch.device("meta"):  # as above
            judge = self.new_judge()
        judge.load_state_dict(_fp32(path) if path else self._tensors("judge"), assign=True)
        return judge.eval().requires_grad_(False)

    def token_rows(self) -> TokenRows | None:
        """Return the stored rows of the text encoder's token table; None if all rows are drawn."""
        return self.rows_of(load_file(self.file("tokens"))) if self.rows_of else None

    def version(self) -> str:
        """Return the hash of all weights, 12 hexadecimal digits; it also changes when the pairs do."""
        for name in ("unet", "autoencoder", "judge", *(("tokens",) if self.rows_of else ())):
            self.file(name)
        digest = hashlib.sha256(PAIRS_VERSION)
        for path in sorted(self.folder.glob("*.safetensors")):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    def file(self, name: str) -> Path:
        """Return the file of one part.

        Raises:
            FileNotFoundError: if the repository does not hold it.
        """
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"the weights of the {self.world} world are not complete: {path} is missing. Restore the "
                f"file from the repository, or train it: python -m {self.recipe} --help says how."
            )
        return path

    def _tensors(self, name: str) -> dict[str, Tensor]:
        return _fp32(self.file(name))


SMALL = Shipped("small", FOLDER, "training.mini.recipe", Judge)
load_unet, load_autoencoder, load_judge = SMALL.load_unet, SMALL.load_autoencoder, SMALL.load_judge


def load_expert_metadata() -> dict[str, dict[str, str]]:
    """Return the metadata of each shipped expert: category -> strings for its file."""
    with open_tensors(SMALL.file("experts")) as state:
        return {
            category: json.loads(text) for category, text in state.metadata.items() if category in CATEGORIES
        }


def load_expert_layers() -> dict[str, dict[str, LowRank]]:
    """Return the shipped experts of the narrow UNet: category -> module path -> LoRA layer."""
    tensors = _fp32(SMALL.file("experts"))
    experts: dict[str, dict[str, LowRank]] = {category: {} for category in CATEGORIES}
    for name, up in tensors.items():
        category, _, rest = name.partition("/")
        if rest.endswith(".up"):
            module = rest.removesuffix(".up")
            experts[category][module] = LowRank(up=up, down=tensors[f"{category}/{module}.down"])
    return experts


def _fp32(path: Path) -> dict[str, Tensor]:
    return {key: tensor.float() for key, tensor in load_file(path).items()}
