"""Fréchet inception distance between two sets of images, by the package torch-fidelity.

The package downloads its weights as a pickle; here the user brings them as .safetensors. Source: Heusel et
al. 2017, arXiv:1706.08500.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ...system.tensors import open_tensors
from ..optional import optional_package

PACKAGE = "torch-fidelity"
WIDTH = 2048  # of the features
ENOUGH = WIDTH + 2  # images in each set; with fewer, the covariance does not have full rank


def load_inception(file: Path, device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
    """Return f(image (1, 3, h, w) in [0, 1]) -> features (2048,), fp32 on the CPU.

    Args:
        file: the weights of torch-fidelity's InceptionV3, saved as .safetensors.
        device: to run on.

    Raises:
        ValueError: if the package is missing, or if the weights are missing, damaged or do not fit.
    """
    module, _ = optional_package("torch_fidelity", PACKAGE, "FID")
    with open_tensors(file) as tensors:
        state = {name: tensors[name] for name in tensors}
    content = io.BytesIO()
    torch.save(state, content)  # the package loads only a pickle: this one holds just these tensors
    content.seek(0)
    try:
        model = module.FeatureExtractorInceptionV3(
            "inception-v3-compat", [str(WIDTH)], feature_extractor_weights_path=content
        )
    except RuntimeError as error:
        raise ValueError(f"{file.name} does not hold the weights of torch-fidelity's InceptionV3.") from error
    model.to(device)

    def features(image: Tensor) -> Tensor:
        with torch.no_grad():
            (activations,) = model((image * 255).round().byte().to(device))  # (1, 2048)
        return activations[0].float().cpu()

    return features


def frechet_distance(first: Tensor, second: Tensor) -> float | None:
    """Return the distance of two sets of features (n, 2048); None if one has fewer than `ENOUGH`."""
    if min(len(first), len(second)) < ENOUGH:
        return None
    optional_package("torch_fidelity", PACKAGE, "FID")
    from torch_fidelity import metric_fid  # late: an optional package

    statistics = [metric_fid.fid_features_to_statistics(features) for features in (first, second)]
    distance = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[metric_fid.KEY_METRIC_FID]
    return max(0.0, float(distance))  # rounding puts equal sets just below 0
