"""The command line: `python -m training COMMAND`, for people and, with --json, for machines.

Exit codes: 0 success; 1 the work failed (training changed nothing, disk or memory is full); 2 invalid input;
130 stopped by Ctrl-C. Unless the code is 0, the last line on stderr says what happened.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module

from .commands import COMMANDS
from .commands.options import CommandParser, one_line
from .commands.output import Answer, messages_on_stderr

_PROGRAM = f"python -m {__package__}"
_BAD_INPUT = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)
_LESS_MEMORY = "Close other programs, or choose a smaller batch, rank or resolution."
_FAILED = (RuntimeError, OSError)  # checked after _BAD_INPUT, which takes the OSErrors of bad input


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: words after the program's name; None reads them from the process.

    Raises:
        SystemExit: by argparse, with 0 after --help and 2 after words it does not accept.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parser(argv).parse_args(argv, argparse.Namespace(argv=argv))  # reports quote the exact command
    try:
        with messages_on_stderr(__package__):
            answer = args.run(args)
    except KeyboardInterrupt:
        sys.stderr.write("stopped by Ctrl-C\n")
        return 130
    except _BAD_INPUT as error:
        sys.stderr.write(f"{_PROGRAM} {args.command}: {one_line(error)}\n")
        return 2
    except _FAILED as error:
        sys.stderr.write(f"{_PROGRAM} {args.command}: {one_line(error)}\n")
        return 1
    except MemoryError as error:  # mostly without a message; a full GPU is a RuntimeError
        detail = f" ({one_line(error)})" if str(error) else ""
        sys.stderr.write(
            f"{_PROGRAM} {args.command}: this machine's memory is full{detail}. {_LESS_MEMORY}\n"
        )
        return 1
    if answer:  # only one of several processes answers
        _write(answer, as_json=args.json)
    return 0


def _parser(argv: Sequence[str]) -> CommandParser:
    """Return the parser; only the chosen command is imported, because importing all takes seconds."""
    parser = CommandParser(_PROGRAM, description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary}.")
        if name == chosen:
            import_module(f".commands.{name}", __package__).add_arguments(command)
    return parser


def _write(answer: Answer, *, as_json: bool) -> None:
    sys.stdout.write(f"{json.dumps(answer.facts) if as_json else answer.text}\n")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a redirected Windows console may not support every character
    sys.exit(main())
