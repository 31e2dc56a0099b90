#!/usr/bin/env python3
"""Set up and run AlignGuard: the demo, the tests, a server and the benchmarks.

Everything is installed into `.venv` and `.host` beside this file; delete the two folders to undo it. An
interrupted set-up continues where it stopped. Only the standard library is used; the steps of the set-up are
in `tests/host/virtual_environment.py` and `tests/host/host_source.py`.
"""

from __future__ import annotations  # lets an old Python run as far as the error about its version

import argparse
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "tests" / "host"))

from host_source import host_version, provide_host
from virtual_environment import (
    ROOT,
    SetupError,
    clean_environment,
    install_packages,
    provide_venv,
    still_runs,
    venv_python,
)

COMMANDS = {
    "demo": "train experts, merge and apply them in a real ComfyUI, and write demo_output/",
    "test": "check the format, then run all tests, including those in ComfyUI; extra arguments go to pytest",
    "serve": "start ComfyUI with its web page, this pack and the mini model; extra arguments go to ComfyUI",
    "bench": "measure the figures of docs/measurements.md",
}
SCRIPTS = {"demo": "tests/host/demo.py", "serve": "tests/host/serve.py", "bench": "benchmarks/run.py"}
FAST = "not host and not slow"
NO_TESTS = 5  # exit code of pytest if no test was selected
STOP_LIMIT_S = 30
CORES = min(os.cpu_count() or 1, 8)

log = logging.getLogger("dev")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 2 if the set-up failed, 130 after Ctrl+C."""
    parser = argparse.ArgumentParser(prog="dev.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    options, arguments = parser.parse_known_args(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that child processes are ended
    try:
        host = set_up(for_tests=options.command == "test")
        if options.command == "test":
            return test(host, arguments)
        return run(host, SCRIPTS[options.command], *arguments)
    except SetupError as error:
        log.error("dev.py: %s", error)
        return 2
    except KeyboardInterrupt:
        log.error("interrupted; run the same command to continue")
        return 130


def set_up(root: Path = ROOT, for_tests: bool = False) -> Path:
    """Install everything that is missing and return the folder of ComfyUI.

    Raises:
        SetupError: if a step fails; the error says what to do.
    """
    with one_at_a_time(root / ".host"):
        provide_venv(root)
        host = provide_host(root)
        install_packages(root, host, for_tests)
    version = ".".join(map(str, host_version(host))) or "(unknown version)"
    log.info("set-up complete: ComfyUI %s in %s", version, host)
    return host


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process works on the folder; the system frees the lock of a killed process."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("a") as lock:
        waiting = False
        while not _locked(lock.fileno()):
            if not waiting:
                log.info("waiting for another process that works on %s", folder)
            waiting = True
            time.sleep(1)
        yield


def _locked(file: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt  # Windows only

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # not on Windows

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def child_environment(host: Path) -> dict[str, str]:
    """Return the environment of child processes: path of the host, no access to the hub, all cores."""
    environment = clean_environment()
    environment.setdefault("OMP_NUM_THREADS", str(CORES))
    environment.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # waiting threads sleep, so others can work meanwhile
    return environment | {
        "COMFYUI_PATH": str(host),
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("", "tests", "tests/host")),
        "PYTHONUTF8": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


def run(host: Path, *command: str, **changed: str) -> int:
    """Run Python of `.venv` in the repository with these arguments and return its exit code.

    Args:
        host: folder of ComfyUI.
        command: arguments of Python.
        changed: environment variables of this child alone.
    """
    environment = child_environment(host) | changed
    process = subprocess.Popen([str(venv_python()), *command], cwd=ROOT, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        still_runs(process, STOP_LIMIT_S)  # it received the same Ctrl+C and cleans up
        raise
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def test(host: Path, arguments: Sequence[str]) -> int:
    """Run ruff, the fast tests and the host tests, all of them, so that one run shows every failure.

    Tests run in as many processes as there are cores, with one thread each; a file stays in one process, and
    the host tests of a process share one server.
    """
    results = {
        "ruff format": run(host, "-m", "ruff", "format", "--check", "--quiet", "."),
        "ruff check": run(host, "-m", "ruff", "check", "--quiet", "."),
    }
    spread = ("-n", str(CORES), "--dist", "loadfile")
    parts = {"fast tests": ("-m", FAST, *spread), "host tests": ("-m", f"not ({FAST})", *spread)}
    if "-m" in arguments:
        parts = {"all tests": ()}
    for name, options in parts.items():
        log.info("--- %s", name)
        changed = {"OMP_NUM_THREADS": "1"} if "-n" in options else {}
        results[name] = run(host, "-m", "pytest", *options, *arguments, **changed)
    if {results[name] for name in parts} == {0, NO_TESTS}:  # a selection may be in one part only
        results = {name: code for name, code in results.items() if code != NO_TESTS}
    failed = [name for name, code in results.items() if code]
    log.info("failed: %s", ", ".join(failed) or "nothing")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
