"""Grade one answer: what a graded notebook calls where the student does not see it.

`check` prints; nbgrader takes a cell for right unless it raises or writes to stderr. So `grade`
raises, and what it raises reads like a sentence. The judge has a process of its own, in which
nothing that the notebook changed (the library, NumPy, the hidden inputs) counts; the student's
function is sent there by cloudpickle.
"""

import json
import linecache
import os
import pickle
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import spine_lib
from spine_lib import SpineError
from spine_lib.course import checking
from spine_lib.course.exercise import Wrong, find_exercise, hidden_inputs

JUDGE_LIMIT_S = 300
"""Seconds that one answer's judging may take; each call has a limit of its own within them."""


class NoPoint(Wrong):
    """An answer that gets no point, and why."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of a traceback through the library's code."""
        return [str(self)]


def grade(key: str, function: Callable, loaded: Mapping[str, ModuleType] | None = None) -> None:
    """Judge an answer on the open and the hidden inputs, in a new process; raise if it is wrong.

    Args:
        key: the exercise, for example "1.2".
        function: the student's.
        loaded: the library's modules as the notebook has used them, by name, where this one was
            loaded afresh: no function of theirs may have been replaced.

    Raises:
        NoPoint: what is wrong, in the student's terms.
        SpineError: if there is no such exercise, or this copy has no hidden inputs.
    """
    require_hidden_inputs(key)
    loaded = loaded or {}
    wrong = [_verdict(key, function, loaded)]
    for name in loaded.keys() & sys.modules.keys():
        wrong += _replaced(name, _codes(sys.modules[name]), _codes(loaded[name]), "notebook")
    if any(wrong):
        title = find_exercise(key).texts.title
        raise NoPoint(f"Exercise {key} ({title}), no point: {'; '.join(filter(None, wrong))}")


def _verdict(key: str, function: Callable, loaded: Mapping[str, ModuleType]) -> str:
    """Send a function to a new process and return what its judge finds wrong, or nothing."""
    token = secrets.token_hex()
    folder = str(Path(spine_lib.__file__).parents[1])
    dropped = ("JPY_SESSION_NAME", "NBGRADER_EXECUTION")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    paths = os.pathsep.join([folder, *filter(None, [environment.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "spine_lib.course.grading", key],
            input=pickle.dumps([token, *_packed(function, loaded)]),
            env=environment | {"SPINE_GRADING": "1", "PYTHONPATH": paths},
            capture_output=True,
            timeout=JUDGE_LIMIT_S,
            check=False,
        )
        verdict = json.loads(done.stdout)
    except Wrong as wrong:
        return str(wrong)
    except subprocess.TimeoutExpired:
        return f"your function was stopped after {JUDGE_LIMIT_S} seconds"
    except ValueError:
        return f"your function ended its process, with code {done.returncode}, before its end"
    return verdict["wrong"] if verdict["token"] == token else "the verdict is not the judge's"


def _packed(function: Callable, loaded: Mapping[str, ModuleType]) -> list:
    """Return where modules are found, the cells that a function stands in, and it by value."""
    import cloudpickle  # only where grading is done

    code = getattr(function, "__code__", None)
    folder = Path(code.co_filename).parent if code else None
    cells = {
        name: linecache.getlines(name) for name in [*linecache.cache] if Path(name).parent == folder
    }
    fresh = {name: sys.modules[name] for name in loaded.keys() & sys.modules.keys()}
    sys.modules.update(loaded)  # what the function uses of the library goes by name
    try:
        return [sys.path, cells, cloudpickle.dumps(function)]
    except Exception as error:
        raise Wrong(
            f"your function uses something that only its notebook has ({error}): let it work with "
            "its arguments alone"
        ) from None
    finally:
        sys.modules.update(fresh)


def _judge(key: str, packed: bytes) -> dict[str, str]:
    """Return the judge's verdict on a packed function: its token, and what is wrong or nothing."""
    token, paths, cells, function = pickle.loads(packed)
    linecache.cache.update((name, (1, None, lines, name)) for name, lines in cells.items())
    require_hidden_inputs(key)
    sys.path += paths  # last: a file beside the notebook hides no module of the judge's
    names = [name for name in sys.modules if name.split(".")[0] in ("spine_lib", "numpy")]
    before = {name: _codes(sys.modules[name], id) for name in names}
    exercise = find_exercise(key)
    declared = dict(vars(exercise))
    wrong = []
    try:
        checking.check(key, pickle.loads(function))
    except Wrong as mistake:
        wrong = [str(mistake).strip() or "the answer is not right"]
    except Exception as error:
        wrong = [f"it cannot be judged ({type(error).__name__}: {error})"]
    wrong += _replaced(f"exercise {key}", declared, vars(exercise), "function")
    for name, codes in before.items():
        wrong += _replaced(name, codes, _codes(sys.modules[name], id), "function")
    return {"token": token, "wrong": "; ".join(wrong)}


def _codes(module: ModuleType, otherwise: Callable = type) -> dict[str, Any]:
    """Return what tells the functions and methods of a module: their code where it is Python's."""
    parts = dict(vars(module))
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__:
            parts |= {f"{name}.{part}": method for part, method in vars(value).items()}
    callables = {name: value for name, value in parts.items() if callable(value)}
    return {name: getattr(f, "__code__", None) or otherwise(f) for name, f in callables.items()}


def _replaced(module: str, before: Mapping, after: Mapping, who: str) -> list[str]:
    names = [name for name in before.keys() & after.keys() if before[name] != after[name]]
    return [f"the {who} has replaced {module}.{name}, which is not its own" for name in names]


def require_hidden_inputs(key: str) -> None:
    """Raise an error if this copy of the library was made for students.

    Raises:
        SpineError: if there is no such exercise, or no hidden inputs for it.
    """
    find_exercise(key)
    if not hidden_inputs(key):
        home = Path(spine_lib.__file__).parent
        raise SpineError(
            f"Exercise {key} cannot be graded: this copy of spine_lib, in {home}, was made for "
            "students and lacks the hidden inputs; grade with the whole project, for instance by "
            "naming its folder in PYTHONPATH."
        )


def before_grading(assignment: str = "", **others: Any) -> None:
    """End nbgrader where it would grade with a students' copy; it calls this before each one.

    Args:
        assignment: name of a lesson, which starts with its number.
        others: what else nbgrader says; not needed.

    Raises:
        SystemExit: if there are no hidden inputs for the lesson. nbgrader passes over every
            `Exception` from here, and would then give points for answers that nobody tested.
    """
    try:
        require_hidden_inputs(f"{int(assignment[:2])}.1")
    except SpineError as error:
        raise SystemExit(str(error)) from error


def main() -> None:
    """Judge the function on stdin for the exercise named; write the verdict to stdout as JSON."""
    with open(os.dup(1), "w", encoding="utf-8") as stream:
        os.dup2(2, 1)  # what the function prints is no verdict
        json.dump(_judge(sys.argv[1], sys.stdin.buffer.read()), stream)


if __name__ == "__main__":
    main()
