"""Run the command line inside a test."""

import argparse
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from typing import NamedTuple

from tiny_checkpoint import SIDE
from training.__main__ import main
from training.commands import COMMANDS

FAST = ["--resolution", SIDE, "--device", "cpu"]


class Outcome(NamedTuple):
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str


def run(*words):
    """Run a command with these words and return its outcome."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as exited:
            code = exited.code
    return Outcome(code, out.getvalue(), err.getvalue())


def answer_of(outcome):
    """Return the JSON object on stdout of a command that succeeded."""
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def assert_refused(outcome, message):
    """Check that a command refused its input, with a message in the last line on stderr."""
    assert outcome.code == 2
    assert outcome.out == ""
    assert message in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err


def assert_never_overwrites(folder, *words):
    """Check that a command refuses an --out that exists, or that is not a .safetensors file."""
    out = folder / "kept.safetensors"
    out.write_bytes(b"precious")
    assert_refused(run(*words, "--out", out), "kept.safetensors already exists")
    assert out.read_bytes() == b"precious"
    assert_refused(run(*words, "--out", folder / "e.ckpt"), "must end in .safetensors")


def parsers():
    """Return the parser of every command by its words, such as `pairs make`, from the registry."""
    found = {}
    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        import_module(f"training.commands.{command}").add_arguments(parser)
        found |= dict(_leaves(parser, command))
    return found


def _leaves(parser, name):
    """Yield the name and the parser of every action below a command."""
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not actions:
        yield name, parser
    for action in actions:
        for word, below in action.choices.items():
            yield from _leaves(below, f"{name} {word}")
