"""The pages: their links lead somewhere, their commands are valid, and their examples run."""

import ast
import importlib.util
import inspect
import re
import shlex
import sys
import types
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest

import dev
import run as bench
from builders import expert_of
from tiny import random_layers, tiny_unet
from tiny_runs import SMALL, run
from training.__main__ import main
from training.config import MergeConfig
from training.losses import LOSSES
from training.merging import MERGE_METHODS, merge_experts

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
HELP = ROOT / "alignguard_nodes" / "web" / "docs"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(HELP.glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
UNKNOWN = "--no-such-option"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[list[str]]:
    """Return the commands of the bash blocks of a page, as words."""
    lines = "".join(blocks(text_of(page), "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith(("python ", "accelerate "))]


def inline_commands(page: Path) -> list[list[str]]:
    """Return the calls of dev.py in running text, without those that contain a placeholder in capitals."""
    return [span.split() for span in re.findall(r"`(python dev\.py [^`A-Z]+)`", text_of(page))]


SHOWN = [words for page in PAGES for words in commands(page)]
INLINE = [words for page in PAGES for words in inline_commands(page)]
LIBRARY = [words[words.index("training") + 1 :] for words in SHOWN if "training" in words]
DEVELOPMENT = sorted({tuple(words[2:]) for words in (*SHOWN, *INLINE) if words[1] == "dev.py"})


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(page):
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL))
    for link in links:
        place, _, anchor = link.partition("#")
        target = (page.parent / unquote(place)).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_file_that_a_page_names_exists(page):
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    named = re.findall(r"`((?:training|alignguard_nodes|benchmarks|tests|workflows|docs)/[\w/.]*)`", prose)
    new = set(re.findall(r"^# ([\w/]+\.py)$", text_of(page), re.MULTILINE))  # files that the example adds
    new |= {f"alignguard_nodes/web/docs/{name}.md" for name in re.findall(r'node_id="(\w+)"', text_of(page))}
    assert [name for name in named if name not in new and not (ROOT / name).exists()] == []


def test_the_readme_can_be_read_in_three_minutes():
    assert len(text_of(README).splitlines()) <= 120


def test_the_readme_links_the_help_page_of_every_node():
    for page in HELP.glob("*.md"):
        name = text_of(page).splitlines()[0].removeprefix("# ")
        assert f"[{name}]({page.relative_to(ROOT).as_posix()})" in text_of(README)


@pytest.mark.parametrize("words", LIBRARY, ids=" ".join)
def test_every_library_command_on_a_page_is_valid(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*words, UNKNOWN])  # refused only for this word, so everything before it is valid
    assert ended.value.code == 2
    assert f"unrecognized arguments: {UNKNOWN}" in capsys.readouterr().err


@pytest.mark.parametrize("words", DEVELOPMENT, ids=" ".join)
def test_every_development_command_on_a_page_is_valid(words, capsys):
    command, *arguments = words
    assert command in dev.COMMANDS
    if command != "bench":  # the others pass their arguments to pytest or ComfyUI
        return
    assert {word for word in arguments[:1] if not word.startswith("-")} <= bench.PARTS.keys()
    with pytest.raises(SystemExit):
        bench.main([*arguments, UNKNOWN])
    assert f"unrecognized arguments: {UNKNOWN}" in capsys.readouterr().err


def test_the_page_of_measurements_names_every_part_of_the_benchmark():
    named = {word for words in inline_commands(ROOT / "docs" / "measurements.md") for word in words}
    assert bench.PARTS.keys() <= named


# The examples


class Example:
    """The code of a page that adds something: the new file, the registry entry, and tests."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.text = text_of(ROOT / "docs" / name)
        self.file, self.entry, *self.tests = blocks(self.text, "python")
        self._monkeypatch, self._folder = monkeypatch, folder

    def load(self, code: str, name: str) -> types.ModuleType:
        """Import code as a module with the given name."""
        file = self._folder / f"{name}.py"
        file.write_text(code, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        self._monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    def load_file(self, package: str = "") -> types.ModuleType:
        """Import the new file under the name given in its first line."""
        path = re.match(r"# ([\w/]+)\.py\n", self.file)[1]
        return self.load(self.file, package + path.replace("/", "."))

    def load_entry(self, registry: str, value: str) -> dict:
        """Return the entry as the registry's module would read it; `value` is the name of its type."""
        comment, imports, entry = re.match(r"(#.*\n)((?:from .*\n)+)\n(.*)", self.entry, re.DOTALL).groups()
        code = f"{comment}{imports}from {registry} import {value}\n\nENTRY = {{\n{entry}}}\n"
        return self.load(code, f"{registry}.entry").ENTRY

    def run_tests(self) -> int:
        """Run the tests on the page and return their number."""
        functions = [
            function
            for code in self.tests
            for name, function in vars(self.load(code, "tests_of_the_page")).items()
            if name.startswith("test_")
        ]
        for function in functions:
            function()
        return len(functions)


@pytest.fixture
def example(monkeypatch, tmp_path):
    return lambda name: Example(name, monkeypatch, tmp_path)


def test_the_example_of_a_loss_trains_an_expert(example, monkeypatch):
    page = example("add_a_loss.md")
    page.load_file()
    ((name, objective),) = page.load_entry("training.losses", "Objective").items()
    monkeypatch.setitem(LOSSES, name, objective)
    result = run(replace(SMALL, objective=name, steps=2, beta=0.0))
    assert len(result.losses) == 2
    assert all(layer.norm() > 0 for layer in result.layers.values())
    assert page.run_tests() == 3


def test_the_example_of_a_merge_method_merges_experts(example, monkeypatch):
    page = example("add_a_merge_method.md")
    page.load_file()
    ((name, method),) = page.load_entry("training.merging", "MergeMethod").items()
    monkeypatch.setitem(MERGE_METHODS, name, method)
    experts = [
        expert_of(random_layers(tiny_unet(), 2, seed), category)
        for seed, category in enumerate(("hate", "violence"))
    ]
    merged = merge_experts(experts, MergeConfig(method=name))
    assert merged.categories == ("hate", "violence")
    assert merged.layers.keys() == experts[0].layers.keys()
    assert page.run_tests() == 3


class Slot:
    """Fake type of the host's API whose inputs and outputs only store their arguments."""

    @staticmethod
    def Input(name, **facts):  # noqa: N802 - the host's name
        return SimpleNamespace(id=name, **facts)

    @staticmethod
    def Output(**facts):  # noqa: N802
        return SimpleNamespace(**facts)


class Api:
    """Fake of `comfy_api.latest.io`."""

    ComfyNode = object
    Custom = staticmethod(lambda name: Slot)
    Schema = staticmethod(lambda **facts: SimpleNamespace(**facts))
    NodeOutput = staticmethod(lambda *values, ui=None: values)

    def __getattr__(self, name):
        return Slot


@pytest.fixture
def pack(monkeypatch):
    """Make the pack importable as `pack` without a host, using fakes of `host` and of the host's API."""
    for name, path in (("pack", ROOT), ("pack.alignguard_nodes", ROOT / "alignguard_nodes")):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        monkeypatch.setitem(sys.modules, name, package)
    border = types.ModuleType("pack.alignguard_nodes.host")
    border.node_schema = Api.Schema
    monkeypatch.setitem(sys.modules, border.__name__, border)
    sys.modules["pack.alignguard_nodes"].host = border
    api = SimpleNamespace(io=Api(), ui=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "comfy_api", SimpleNamespace(latest=api))
    monkeypatch.setitem(sys.modules, "comfy_api.latest", api)
    yield "pack."
    for name in [name for name in sys.modules if name.startswith("pack.")]:
        del sys.modules[name]


def test_the_example_of_a_node_has_a_schema_a_help_page_and_runs(example, pack):
    page = example("add_a_node.md")
    module = page.load_file(pack)
    node = getattr(module, re.search(r"^    (\w+),$", page.entry, re.MULTILINE)[1])
    schema = node.define_schema()
    inputs = [socket.id for socket in schema.inputs]
    assert schema.node_id.startswith("AlignGuard")
    assert all(socket.tooltip for socket in (*schema.inputs, *schema.outputs))
    assert list(inspect.signature(node.execute).parameters) == inputs
    expert = expert_of({}, "hate", "violence")
    assert node.execute(expert, "violence") == (True, "hate, violence")
    assert node.execute(expert, "sexual")[0] is False
    (help_page,) = blocks(page.text, "markdown")
    assert help_page.startswith(f"# {schema.display_name}\n")
    assert all(f"`{name}`" in help_page for name in inputs)


def messages() -> list[str]:
    """Return every text that the source puts together, with … for each value that it inserts."""
    found = []
    for wing in ("training", "alignguard_nodes"):
        for file in (ROOT / wing).rglob("*.py"):
            for node in ast.walk(ast.parse(text_of(file))):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                    found.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(re.sub(r"%[sd]", "…", node.value))
    return found


QUOTED = re.findall(r"^\| `([^`]+)` \|", text_of(ROOT / "docs" / "troubleshooting.md"), re.MULTILINE)
MESSAGES = "\n".join(messages())


@pytest.mark.parametrize("message", QUOTED)
def test_every_message_of_the_page_of_troubles_is_one_of_the_source(message):
    assert message in MESSAGES
