"""All nodes, without a host: their recorded schemas, their help pages, and what they may import.

The schemas are in `node_schemas.json`, as a real ComfyUI states them; `tests/host/record_schemas.py` records
them again after a deliberate change, and `tests/host/test_nodes_http.py` compares them with the live ones.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from training.config import (
    CostConfig,
    DepthConfig,
    DualLatentConfig,
    EvaluateConfig,
    ExtractConfig,
    GuardConfig,
    InterpretConfig,
    LabelConfig,
    MakeConfig,
    MergeConfig,
    RewriteConfig,
    StressConfig,
    TrainConfig,
    options,
)

ROOT = Path(__file__).resolve().parents[2]
NODES = ROOT / "alignguard_nodes"
SCHEMAS = json.loads((ROOT / "tests" / "alignguard_nodes" / "node_schemas.json").read_text(encoding="utf-8"))
OURS = {name: schema for name, schema in SCHEMAS.items() if name.startswith("AlignGuard")}


def sources() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in NODES.glob("*.py")]


def test_every_node_is_recorded_under_its_id_and_name():
    declared = {}
    for text in sources():
        declared |= re.findall(r'node_id="(\w+)",\s+display_name="([^"]+)"', text)
    assert declared == {name: schema["display_name"] for name, schema in OURS.items()}


@pytest.mark.parametrize(
    ("node", "config"),
    [
        ("AlignGuardTrainSafetyDPO", TrainConfig),
        ("AlignGuardTrainPromptGuard", GuardConfig),
        ("AlignGuardTrainPromptInterpreter", InterpretConfig),
        ("AlignGuardTrainSafetyCost", CostConfig),
        ("AlignGuardMergeSafetyExperts", MergeConfig),
        ("AlignGuardExtractSafetyExpert", ExtractConfig),
        ("AlignGuardMakeSafetyPairs", MakeConfig),
        ("AlignGuardRewritePrompts", RewriteConfig),
        ("AlignGuardLabelSafetyPairs", LabelConfig),
        ("AlignGuardSafetyBenchmark", EvaluateConfig),
        ("AlignGuardCheckSafetyStack", EvaluateConfig),
        ("AlignGuardConceptStress", StressConfig),
        ("AlignGuardErasureDepth", DepthConfig),
        ("AlignGuardDualLatent", DualLatentConfig),
    ],
)
def test_a_node_offers_every_option_in_the_order_of_its_config(node, config):
    names = [option.name for option in options(config)]
    assert [name for name in OURS[node]["required"] | OURS[node]["optional"] if name in names] == names


def test_every_node_has_a_help_page_with_its_picture_that_names_every_input_and_output():
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (NODES / "web" / "docs").glob("*.md")}
    assert pages.keys() == OURS.keys()
    texts = {re.search(r'node_id="(\w+)"', text)[1]: text for text in sources() if "node_id=" in text}
    for name, schema in OURS.items():
        inputs = schema["required"] | schema["optional"]
        explained = [key for key in inputs if key[-1] not in "2345678"]  # expert_2 is explained by expert_1
        assert pages[name].startswith(f"# {schema['display_name']}\n")
        assert f"]({name}.jpg)" in pages[name]  # `tests/host/node_pictures.py` makes it
        assert [key for key in explained if f"`{key}`" not in pages[name]] == []
        outputs = [key for key, _ in schema["outputs"]]
        assert [key for key in outputs if f"`{key}`" not in pages[name]] == []
        assert ("*Show Advanced*" in pages[name]) == ("in_sight=(" in texts[name])


def test_importing_the_pack_imports_nothing_heavy():
    code = (
        "import importlib.util, sys;"
        f"spec = importlib.util.spec_from_file_location('a-pack', {str(ROOT / '__init__.py')!r});"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module);"
        "print(module.WEB_DIRECTORY, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["./alignguard_nodes/web", "False"]


def test_nodes_leave_the_host_to_its_package_and_do_no_tensor_arithmetic():
    for text in sources():
        assert not any(word in text for word in ("import comfy.", "folder_paths", "torch."))
