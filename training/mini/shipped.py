"""The weights in the repository, all fp16, and what is made of them: a checkpoint, and pictures.

Of each world there are a narrow UNet, the autoencoder and the judge. The small world also has seven narrow
experts, the large one the token rows that carry meaning. The mini flow has its own file, see `flow.shipped`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..experts.low_rank import LowRank
from ..rules.categories import CATEGORIES
from ..system.tensors import open_tensors
from . import architecture
from .expand import expand_autoencoder, expand_unet, native_autoencoder, native_unet
from .judge import Classifier, Judge
from .pairs import Draw, make_draw
from .text_encoder import embed, load_text_encoder, text_encoder_state

FOLDER = Path(__file__).with_name("weights")
LATENT_SCALE = 0.18215  # SD 1.5: the host divides by it when encoding and multiplies before the UNet
TAESD_TIMES = 64 // architecture.AUTOENCODER_WIDTH  # hosts expect TAESD's width
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

    def checkpoint_state(self) -> dict[str, Tensor]:
        """Return the tensors of the checkpoint, which hosts load as SD 1.5."""
        unet = native_unet(expand_unet(self.load_unet().state_dict()))
        autoencoder = native_autoencoder(
            expand_autoencoder(self.load_autoencoder().state_dict(), TAESD_TIMES)
        )
        autoencoder |= {"vae_scale": torch.tensor(LATENT_SCALE), "vae_shift": torch.tensor(0.0)}
        return {
            **prefixed("model.diffusion_model.", unet),
            **prefixed("first_stage_model.", autoencoder),
            **prefixed("cond_stage_model.transformer.", text_encoder_state(self.token_rows())),
        }

    def new_draw(self, prompts: Sequence[str], on_progress: Callable[[int, int], None] | None = None) -> Draw:
        """Return a function that draws these prompts, of which the empty one must be one.

        Args:
            prompts: each is encoded once.
            on_progress: called with the number of encoded prompts and of all.
        """
        embeds = embed(prompts, load_text_encoder(self.token_rows()), on_progress)
        return make_draw(self.load_unet(), self.load_autoencoder(), dict(zip(prompts, embeds, strict=True)))

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


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under longer names."""
    return {prefix + name: tensor for name, tensor in state.items()}


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
