"""Node: Extract Safety Expert."""

from comfy_api.latest import io, ui

from ..training.config import ExtractConfig
from ..training.rules.categories import CATEGORIES, normalize_categories
from . import host, inputs
from .files import entry_fingerprint
from .inputs import CATEGORY, config_inputs

UNSTATED, ALL = "not stated", "all"


class ExtractSafetyExpert(io.ComfyNode):
    """Turn the difference of two models into an expert.

    It takes names of files, not MODELs: the files hold every digit, which a loaded MODEL may have lost to
    the host's own type, and are read a tensor at a time, where two MODELs would fill the memory.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        models = host.model_files()
        return io.Schema(
            node_id="AlignGuardExtractSafetyExpert",
            display_name="Extract Safety Expert",
            category=CATEGORY,
            description="Turn what tuning changed in a full model into an expert, to apply, merge or save.",
            inputs=[
                io.Combo.Input(
                    "base",
                    options=models,
                    tooltip="The model before it was tuned, in models/checkpoints, diffusion_models or "
                    "diffusers. Any other one would leave its own differences in the expert.",
                ),
                io.Combo.Input(
                    "tuned",
                    options=models,
                    tooltip="The model after it was tuned. Both are read from disk piece by piece, so their "
                    "size does not matter.",
                ),
                io.Combo.Input(
                    "category",
                    options=[UNSTATED, ALL, *CATEGORIES],
                    default=UNSTATED,
                    tooltip="What the tuned model protects from. It goes into the expert's file and does not "
                    "change a weight.",
                ),
                *config_inputs(ExtractConfig),
            ],
            outputs=[
                inputs.SafetyExpert.Output(display_name="expert", tooltip="For Apply, Merge, Save or Info."),
                io.String.Output(
                    display_name="report", tooltip="How much of the change the expert holds, and what not."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, base: str | None, tuned: str | None, category: str | None) -> bool | str:
        try:
            for name in (base, tuned):
                if name is not None:  # None: comes through a link
                    host.model_path(name)
            _categories(category or UNSTATED)  # the user's own categories are allowed, in API prompts
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        return True

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
        return io.NodeOutput(expert, report, ui=ui.PreviewText(report))


def _categories(category: str) -> tuple[str, ...]:
    return normalize_categories({UNSTATED: (), ALL: CATEGORIES}.get(category, category))
