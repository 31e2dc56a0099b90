"""The nodes: sockets and widgets in, `training` called, sockets out. One file per node.

To add a node: write its file, then add its line to `NODES`. ComfyUI imports every node when it starts, for
their schemas: what a schema is made of is imported at the top, and of `training` nothing else but by the
function that needs it, as in `training.commands`. `tests/test_architecture.py` says what that leaves.
"""

from comfy_api.latest import ComfyExtension, io

from . import host
from .apply_safety_expert import ApplySafetyExpert
from .check_safety_stack import CheckSafetyStack
from .concept_stress import ConceptStress
from .concept_vector import ConceptVector
from .erasure_depth import ErasureDepth
from .extract_safety_expert import ExtractSafetyExpert
from .load_prompt_set import LoadPromptSet
from .load_safety_expert import LoadSafetyExpert
from .load_safety_pairs import LoadSafetyPairs
from .make_safety_pairs import MakeSafetyPairs
from .merge_safety_experts import MergeSafetyExperts
from .rewrite_prompts import RewritePrompts
from .safety_benchmark import SafetyBenchmark
from .safety_expert_info import SafetyExpertInfo
from .safety_judge import SafetyJudge
from .save_safety_expert import SaveSafetyExpert
from .train_safety_dpo import TrainSafetyDPO

NODES: list[type[io.ComfyNode]] = [
    LoadSafetyExpert,
    ApplySafetyExpert,
    MergeSafetyExperts,
    TrainSafetyDPO,
    LoadSafetyPairs,
    SaveSafetyExpert,
    SafetyExpertInfo,
    ExtractSafetyExpert,
    SafetyJudge,
    MakeSafetyPairs,
    RewritePrompts,
    ConceptVector,
    ConceptStress,
    ErasureDepth,
    CheckSafetyStack,
    LoadPromptSet,
    SafetyBenchmark,
]


class AlignGuardExtension(ComfyExtension):
    """What the host registers."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes; the model folder of the experts is made known on the way."""
        host.register_folders()
        return NODES
