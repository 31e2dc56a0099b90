"""Node: Extract Safety Expert."""

from comfy_api.latest import io

from ..training.config import ExtractConfig
from ..training.rules.categories import CATEGORIES, normalize_categories
from . import host, inputs
from .files import entry_fingerprint
from .inputs import CATEGORY, checked, config_inputs
from .shown.preview import expert_preview

UNSTATED, ALL = "not stated", "all"


class ExtractSafetyExpert(io.ComfyNode):
    """Turn the difference of two models into an expert.

    The inputs are file names and not MODELs: a file has the full precision, which a loaded MODEL may have
    lost to the host's type, and is read one tensor at a time, while two MODELs would fill the memory.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        models = host.model_files()
        return host.node_schema(
            node_id="AlignGuardExtractSafetyExpert",
            display_name="Extract Safety Expert",
            category=CATEGORY,
            search_aliases=["extract lora", "model difference", "svd", "lora from checkpoint", "alignguard"],
            description="Turn what tuning changed in a full model into an expert, to apply, merge or save.",
            inputs=[
                io.Combo.Input(
                    "base",
                    options=models,
                    tooltip="The model before tuning, in models/checkpoints, diffusion_models or diffusers. "
                    "Another base model would add its own differences to the expert.",
                ),
                io.Combo.Input(
                    "tuned",
                    options=models,
                    tooltip="The model after tuning; a folder may hold its unet alone. Both are read from "
                    "disk piece by piece, so they need not fit into memory.",
                ),
                io.Combo.Input(
                    "category",
                    options=[UNSTATED, ALL, *CATEGORIES],
                    default=UNSTATED,
                    tooltip="What the tuned model protects from. It is stored in the expert's metadata and "
                    "does not affect the weights.",
                ),
                *config_inputs(ExtractConfig),
            ],
            outputs=[
                inputs.SafetyExpert.Output(display_name="expert", tooltip="For Apply, Merge, Save or Info."),
                io.String.Output(
                    display_name="report",
                    tooltip="How much of the change is in the expert, and what is not.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, base: str | None, tuned: str | None, category: str | None) -> bool | str:
        return checked(
            (host.model_path, base),
            (host.model_path, tuned),
            (_refuse_same, (base, tuned)),
            (_categories, category),  # API prompts may name other categories
        )

    @classmethod
    def fingerprint_inputs(cls, base: str, tuned: str, **_: object) -> str:
        return " ".join(entry_fingerprint(host.model_path(name)) for name in (base, tuned))

    @classmethod
    def execute(cls, base: str, tuned: str, category: str, **settings: object) -> io.NodeOutput:
        from ..training.experts.extract import extract_expert

        expert = extract_expert(
            host.model_path(base),
            host.model_path(tuned),
            ExtractConfig(**settings),
            categories=_categories(category),
            on_progress=host.progress(cls.hidden.unique_id),
        )
        report = expert.report()
        return io.NodeOutput(expert, report, ui=expert_preview(expert, report))


def _refuse_same(models: tuple[str | None, str | None]) -> None:
    base, tuned = models
    if base is not None and base == tuned:
        raise ValueError(
            f"base and tuned are the same file, {base}. Choose the model before and after tuning."
        )


def _categories(category: str) -> tuple[str, ...]:
    return normalize_categories({UNSTATED: (), ALL: CATEGORIES}.get(category, category))
