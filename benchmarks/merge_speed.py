"""Speed of merging: against PEFT at SDXL's shapes, and the cost of calibration beside the base model.

PEFT's `svd` is timed once per layer shape, on a model of that one layer, and multiplied by the number of
layers of that shape, because the whole of SDXL would take minutes and ten gigabytes. Our time is that of the
whole merge: all 560 layers, hashes and metadata included. All times are processor seconds of one thread,
which a busy machine disturbs less than wall-clock time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import nn

from tensor_bytes import LiveBytes
from training.config import MergeConfig
from training.experts.expert import SafetyExpert, open_expert, save_expert
from training.experts.low_rank import LowRank
from training.merging import (
    MERGE_METHODS,
    BaseNetwork,
    CalibrationInputs,
    Members,
    collect_statistics,
    merge_experts,
)
from training.merging.calibration_inputs import NEUTRAL, base_passes
from training.mini import shipped
from training.mini.architecture import load_unet
from training.mini.expand import expand_layers, expand_unet
from training.models.conditioning import Conditioning
from training.models.noise import NoiseSchedule
from training.rules.categories import CATEGORIES

NUM_EXPERTS, RANK = 7, 4
TEXT_WIDTH = 2048
# Width (d_out of the attention projections) -> number of SDXL's transformer blocks.
BLOCKS = {640: 10, 1280: 60}
LATENT, BATCH = (4, 32, 32), 4
TOKENS, TEXT = 77, 768


def measure() -> dict[str, float]:
    """Measure seconds, ratios of two timings of this run, and differences."""
    with _one_thread():
        return merging() | calibrating()


def merging() -> dict[str, float]:
    """Merge seven experts of SDXL's shapes to rank 4, by the library and by PEFT."""
    experts = [_expert(seed) for seed in range(NUM_EXPERTS)]
    config = MergeConfig(method="svd", output_rank=RANK)
    merge_experts(experts[:2], config)  # warm up the linear algebra
    unhashed = [SafetyExpert(e.layers, e.categories, e.family, {}, e.name) for e in experts]
    seconds = _seconds(lambda: merge_experts(unhashed, config))
    merged, peak = _merged_from_files(experts, config)
    result = sum(layer.up.nbytes + layer.down.nbytes for layer in merged.layers.values())
    peft_seconds, difference = 0.0, 0.0
    for modules in _modules_by_shape().values():
        parts = [expert.layers[modules[0]] for expert in experts]
        delta, layer_seconds = _merged_by_peft(parts)
        peft_seconds += layer_seconds * len(modules)
        merged_delta = merged.layers[modules[0]].delta()
        difference = max(
            difference, float(torch.linalg.norm(merged_delta - delta) / torch.linalg.norm(delta))
        )
    return {
        "svd of 7 SDXL experts, seconds": seconds,
        "PEFT's svd of the same, seconds": peft_seconds,
        "times faster than PEFT": peft_seconds / seconds,
        "relative difference to PEFT": difference,
        "result, MB": result / 1e6,
        "peak memory of merging files beside the result, MB": (peak - result) / 1e6,
    }


def calibrating() -> dict[str, float]:
    """Collect statistics of seven experts on the wide mini UNet at 256 pixels, against bare passes."""
    unet = load_unet(expand_unet(shipped.load_unet().state_dict()))
    base = BaseNetwork(unet, NoiseSchedule.scaled_linear())
    experts = [
        SafetyExpert(expand_layers(layers), (category,), "sd15", {}, category)
        for category, layers in shipped.load_expert_layers().items()
    ]
    categories = [*CATEGORIES, NEUTRAL]
    prompts = Conditioning(torch.randn(len(categories), TOKENS, TEXT, generator=_generator(0)))
    inputs, members = CalibrationInputs(prompts, LATENT, categories), Members.of(experts)

    def bare() -> None:
        with torch.no_grad():
            for start in range(0, len(prompts), BATCH):
                numbers = range(start, start + BATCH)
                for _ in base_passes(base, inputs.batch(numbers), numbers, MergeConfig()):
                    pass

    def collected(method: str) -> Callable[[], object]:
        config = MergeConfig(method=method)
        return lambda: collect_statistics(base, inputs, members, config, batch_size=BATCH)

    methods = [name for name, method in MERGE_METHODS.items() if method.collector and not method.is_distilled]
    runs = [bare, *map(collected, methods)]
    bare()
    plain, *counted = (min(times) for times in zip(*(map(_seconds, runs) for _ in range(3)), strict=True))
    costs = zip(methods, counted, strict=True)
    return {
        "base pass, seconds": plain,
        **{f"cost of statistics for {name} over the base pass": seconds / plain for name, seconds in costs},
    }


def _modules_by_shape() -> dict[tuple[int, int], list[str]]:
    """Return SDXL's 560 attention projections by (d_out, d_in); their paths are distinct, not SDXL's."""
    modules: dict[tuple[int, int], list[str]] = {}
    for width, count in BLOCKS.items():
        for number in range(count):
            block = f"down_blocks.{1 if width == 640 else 2}.attentions.0.transformer_blocks.{number}"
            for attention, name in ((a, n) for a in (1, 2) for n in ("to_q", "to_k", "to_v", "to_out.0")):
                is_text = attention == 2 and name in ("to_k", "to_v")
                shape = (width, TEXT_WIDTH if is_text else width)
                modules.setdefault(shape, []).append(f"{block}.attn{attention}.{name}")
    return modules


def _expert(seed: int) -> SafetyExpert:
    generator = _generator(seed)
    layers = {
        module: LowRank(
            torch.randn(d_out, RANK, generator=generator), torch.randn(RANK, d_in, generator=generator)
        )
        for (d_out, d_in), modules in _modules_by_shape().items()
        for module in modules
    }
    return SafetyExpert(layers, (f"category {seed}",), "sdxl", {}, f"expert_{seed}")


def _merged_from_files(experts: list[SafetyExpert], config: MergeConfig) -> tuple[SafetyExpert, int]:
    """Merge layer by layer as the command line does; also return the peak bytes of tensors."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [save_expert(expert, Path(folder) / f"{expert.name}.safetensors") for expert in experts]
        with LiveBytes() as live, ExitStack() as files:
            opened = [files.enter_context(open_expert(path)) for path in paths]
            return merge_experts(opened, config), live.peak


def _merged_by_peft(parts: list[LowRank]) -> tuple[torch.Tensor, float]:
    """Merge the experts of one layer with PEFT; return the update and the seconds."""
    from peft import LoraConfig, get_peft_model

    d_out, d_in = parts[0].d_out, parts[0].d_in
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["to_q"])
    model = get_peft_model(nn.ModuleDict({"to_q": nn.Linear(d_in, d_out, bias=False)}), config, "0")
    names = [str(number) for number in range(len(parts))]
    for name in names[1:]:
        model.add_adapter(name, config)
    layer = model.base_model.model["to_q"]
    for name, part in zip(names, parts, strict=True):
        layer.lora_A[name].weight.data, layer.lora_B[name].weight.data = part.down, part.up
    seconds = _seconds(
        lambda: model.base_model.add_weighted_adapter(
            names, [1.0] * len(names), "merged", combination_type="svd", svd_rank=RANK
        )
    )
    return layer.get_delta_weight("merged").detach(), seconds


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
