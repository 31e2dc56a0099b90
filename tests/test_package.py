"""What the registry publishes: what is in it, that it works by itself, and what pyproject.toml says of it."""

import re
import shutil
import subprocess
import sys
import zlib
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
LIMIT_BYTES = 5_000_000
ACCELERATORS = ("GPU :: NVIDIA CUDA", "GPU :: AMD ROCm", "GPU :: Intel Arc", "GPU :: Apple Metal")
LEFT_OUT = ("tests/", "benchmarks/", "dev.py", ".ci/", ".github/")
NEEDED = ("LICENSE", "NOTICE", "README.md", "pyproject.toml", "requirements.txt", "__init__.py")


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a clone: git does not say which files are published")
    return [name for name in done.stdout.split("\0") if (ROOT / name).is_file()]


def published() -> list[str]:
    """Return the tracked files that .comfyignore does not leave out."""
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"/[\w./-]+", pattern) for pattern in patterns), "plain paths from the root only"
    return [name for name in tracked() if not f"/{name}".startswith(tuple(patterns))]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The published files, unpacked into a folder of their own."""
    folder = tmp_path_factory.mktemp("published") / "alignguard"
    for name in published():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def python(folder, *arguments):
    command = [sys.executable, "-P", *map(str, arguments)] if sys.version_info >= (3, 11) else None
    command = command or [sys.executable, *map(str, arguments)]
    environment = {"PYTHONPATH": str(folder), "PATH": "", "SYSTEMROOT": "", "PYTHONUTF8": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def test_every_path_that_is_left_out_exists():
    names = tracked()
    for line in (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines():
        if line.startswith("/"):
            assert any(f"/{name}".startswith(line) for name in names), line


def test_the_package_holds_the_pack_and_neither_tests_nor_benchmarks():
    names = published()
    assert not [name for name in names if name.startswith(LEFT_OUT) or name.endswith(".safetensors")]
    assert set(NEEDED) <= set(names)
    whole = ("alignguard_nodes/", "docs/", "workflows/", "subgraphs/")
    assert {name for name in tracked() if name.startswith(whole)} <= set(names)


def test_the_package_is_smaller_than_the_registry_should_carry():
    size = sum(len(zlib.compress((ROOT / name).read_bytes())) for name in published())
    assert size < LIMIT_BYTES, f"{size / 1e6:.1f} MB compressed"


def test_the_library_of_the_package_works_without_what_was_left_out(package):
    done = python(package, "-m", "training", "--help")
    assert done.returncode == 0, done.stderr
    code = (
        "import importlib, pathlib\n"
        "for path in sorted(pathlib.Path('training').rglob('*.py')):\n"
        "    name = '.'.join(path.with_suffix('').parts).removesuffix('.__init__')\n"
        "    if not name.endswith('__main__') and 'recipe' not in name:\n"
        "        importlib.import_module(name)\n"
        "print(importlib.import_module('training').__file__)\n"
    )
    done = python(package, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(package / "training" / "__init__.py")


def test_without_its_weights_the_mini_model_says_where_they_are(package, tmp_path):
    done = python(package, "-m", "training", "mini", "--out", tmp_path / "mini")
    assert done.returncode == 2
    assert "Restore the file from the repository" in done.stderr + done.stdout


@pytest.fixture(scope="module")
def settings():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_registry_finds_everything_it_asks_for(settings):
    project, comfy = settings["project"], settings["tool"]["comfy"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert f"\nversion: {project['version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert all(text for text in (project["description"], comfy["PublisherId"], comfy["DisplayName"]))
    assert {"Repository", "Documentation", "Issues"} <= project["urls"].keys()
    known = {"Operating System :: OS Independent", *(f"Environment :: {name}" for name in ACCELERATORS)}
    assert set(project["classifiers"]) <= known  # one unknown to the registry would drop them all


def test_the_icon_and_the_banner_are_published_and_have_the_shapes_the_registry_wants(settings):
    comfy = settings["tool"]["comfy"]
    for key, ratio in (("Icon", 1), ("Banner", 21 / 9)):
        name = comfy[key].split("/HEAD/")[1]
        assert name in published()
        width, height = size_of(ROOT / name)
        assert width / height == pytest.approx(ratio)
    assert max(size_of(ROOT / comfy["Icon"].split("/HEAD/")[1])) <= 400


def size_of(path):
    if path.suffix != ".svg":
        return Image.open(path).size
    text = path.read_text(encoding="utf-8")
    return tuple(int(re.search(rf'{side}="(\d+)"', text)[1]) for side in ("width", "height"))


def test_the_help_pages_are_registered_once(settings):
    assert "web" not in settings["tool"]["comfy"]  # the host would serve them under a second name
    assert 'WEB_DIRECTORY = "./alignguard_nodes/web"' in (ROOT / "__init__.py").read_text(encoding="utf-8")


def test_the_lower_bounds_are_the_oldest_versions_that_were_tested(settings):
    tested = settings["tool"]["alignguard"]["tested"]
    assert settings["tool"]["comfy"]["requires-comfyui"] == f">={tested['comfyui'][0]}"
    for requirement in settings["project"]["dependencies"]:
        name, bound = requirement.split(">=")
        assert numbers(tested[name][0])[: len(numbers(bound))] == numbers(bound)
    for name in ("diffusers", "peft", "transformers"):
        oldest, newest = map(numbers, tested[name])
        assert oldest <= numbers(version(name)), f"{name} {version(name)} is older than any that was tested"
        assert oldest < newest


def numbers(text):
    return [int(part) for part in re.findall(r"\d+", text)[:3]]


def test_the_workflow_runs_files_that_exist():
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    paths = re.findall(r"(?:tests|\.ci)/[\w/.]+", text)
    assert len(paths) >= 4
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for job in ("lint", "fast", "host", "set-up", "package"):
        assert re.search(rf"^  {job}:", text, re.MULTILINE)
    assert {"windows-latest", "macos-latest", "ubuntu-latest"} <= set(re.findall(r"\w+-latest", text))
