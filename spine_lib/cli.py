"""The command `spine`: read the arguments, run the command, say in one sentence what went wrong.

Only the standard library is imported at the top, so that `spine --help` answers at once and works
before anything is installed. The arguments are in `spine_lib.arguments`, what the commands do in
`spine_lib.commands` and `spine_lib.developing`.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from spine_lib import SpineError
from spine_lib.arguments import build_parser as build_parser


def main(
    argv: list[str] | None = None, before: Callable[[list[str], bool], None] | None = None
) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; those of the process where left out.
        before: called with the arguments (and whether to install anew) ahead of every command
            that needs the dependencies.

    Returns:
        The exit code: 0 done, 1 findings or failed tests, 2 an error told in one sentence, 130
        stopped by Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    _make_console_safe()
    warnings.formatwarning = _plain_warning
    try:
        options = parse(argv)
        if before and options.needs_packages:
            before(argv, getattr(options, "again", False))
        return _run(options)
    except (Exception, KeyboardInterrupt) as error:
        sentence, code = explain(error)
        if sentence is None or os.environ.get("SPINE_DEBUG") == "1":
            raise
        if sentence:
            print(f"spine: {sentence}", file=sys.stderr)
        return code


def parse(argv: list[str]) -> argparse.Namespace:
    """Turn arguments into options; prints the help and leaves where that is asked for.

    Args:
        argv: arguments without the program's name. What `test` does not know goes to pytest.

    Returns:
        The options, with `command` and `needs_packages`.
    """
    parser = build_parser()
    if not argv:
        parser.print_help()
        raise SystemExit(0)
    options, rest = parser.parse_known_args(argv)
    if rest and options.command != "test":
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    options.rest = [argument for argument in rest if argument != "--"]
    return options


def _run(options: argparse.Namespace) -> int:
    room = importlib.import_module(f"spine_lib.{options.room}")
    return getattr(room, options.command.replace("-", "_"))(options) or 0


def explain(error: BaseException) -> tuple[str | None, int]:
    """Find the sentence and the exit code for an error.

    Args:
        error: what a command raised.

    Returns:
        The sentence ("" where there is nothing to say, None where the error is a bug of ours, to
        be shown whole) and the exit code.
    """
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C; the same command again goes on where training was stopped.", 130
    if isinstance(error, SpineError):
        return str(error), 2
    if isinstance(error, BrokenPipeError):
        # The reader (`head`, say) has enough: nothing to tell, for Python at its exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "", 141
    if (place := _full_disk(error)) is not None:
        return f"the disk is full{place}: free some space, then run the same command again.", 2
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("spine_lib"):
        return (
            f"the package {error.name} is not installed in {sys.prefix}: run "
            "`python -m spine_lib setup` in the project's folder, or `pip install -e .` there.",
            2,
        )
    return None, 1


def _full_disk(error: BaseException | None) -> str | None:
    """Return where the disk is full (" at PATH", or "") if that lies behind an error, else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f" at {error.filename}" if error.filename else ""
        if "No space left on device" in str(error):  # torch and pip tell it in their own errors
            return ""
        error = error.__cause__ or error.__context__
    return None


def _make_console_safe() -> None:
    """Print a mark instead of failing where the console cannot show a character (Windows)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _plain_warning(message, category, filename, lineno, line=None) -> str:
    """Show what the library warns of as a sentence; where in its code helps no user."""
    if Path(filename).is_relative_to(Path(__file__).parent) and category is UserWarning:
        return f"spine: note: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"
