"""Wrong answers made out of the right one: by an edit of its source, or by each small change."""

import ast
import copy
import functools
import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from spine_lib import SpineError


@dataclass(frozen=True)
class Edit:
    """A wrong answer: the reference, in whose source each text gives way to the one after it."""

    texts: tuple[str, ...]

    def applied(self, reference: Callable) -> Callable:
        """Return the edited function.

        Raises:
            SpineError: if a text does not occur in the reference's source.
        """
        source = source_of(reference)
        for old, new in zip(self.texts[::2], self.texts[1::2]):
            if old not in source:
                raise SpineError(f"{reference.__name__} does not contain {old!r}, to be {new!r}.")
            source = source.replace(old, new)
        return _function(reference, source)


def source_of(reference: Callable) -> str:
    """Return the source of a reference, without its decorator."""
    return re.search(r"^def .*", inspect.getsource(reference), re.DOTALL | re.MULTILINE)[0]


def edit(*texts: str) -> Edit:
    """Return a wrong answer: the reference with the first text replaced by the second, and so on.

    Example:
        >>> edit("<=", "<").texts
        ('<=', '<')
    """
    return Edit(texts)


def edits(old: str, *new: str) -> tuple[Edit, ...]:
    """Return several wrong answers: the reference with one text replaced by each of the others."""
    return tuple(Edit((old, text)) for text in new)


def _function(reference: Callable, source: str | ast.Module) -> Callable:
    # A copy of the module's names, in which nothing of the edit stays behind.
    space = dict(inspect.getmodule(reference).__dict__)
    exec(compile(source, f"<a variant of {reference.__name__}>", "exec"), space)
    return space[reference.__name__]


@functools.cache
def derived(reference: Callable) -> tuple[tuple[str, Callable], ...]:
    """Return what small slips make of a function, each after words such as "without ...".

    A slip is one change of one expression: a comparison without its equality, a neighbouring
    number, a term or a factor that is missing, another reduction, axis or argument, a step that
    is left out, or an input that is turned round.
    """
    return (*_of_source(reference), *_of_inputs(reference))


def _of_inputs(reference: Callable) -> Iterator[tuple[str, Callable]]:
    names = list(inspect.signature(reference).parameters)

    def changed(change: Callable) -> Callable:
        return lambda *given: reference(*change(list(given)))

    for a, b in itertools.combinations(range(len(names)), 2):
        text = f"with `{names[a]}` and `{names[b]}` exchanged"
        yield text, changed(lambda g, a=a, b=b: [*g[:a], g[b], *g[a + 1 : b], g[a], *g[b + 1 :]])
    for at, name in enumerate(names):
        for text, change in CHANGES.items():
            yield (
                f"with `{name}` {text}",
                changed(lambda g, at=at, f=change: [*g[:at], f(g[at]), *g[at + 1 :]]),
            )


def _moved(step: float) -> Callable:
    # Sizes and distances, several floats, are not miscounted.
    return lambda x: None if np.ndim(x) and np.asarray(x).dtype.kind == "f" else np.add(x, step)


# What may happen to an input before it is used.
CHANGES: dict[str, Callable] = {
    "turned round": lambda x: x[::-1],
    "transposed": lambda x: x.T,
    "inverted": lambda x: ~x,
    "one too large": _moved(1),
    "one too small": _moved(-1),
    "half too large": _moved(0.5),
    "half too small": _moved(-0.5),
}
CHANGES |= {
    f"read in the order {order} along its last axis": lambda x, order=order: (
        x[..., list(order)] if x.shape[-1] == len(order) else None
    )
    for count in (2, 3, 4)
    for order in itertools.permutations(range(count))
    if list(order) != sorted(order)
}


def _of_source(reference: Callable) -> Iterator[tuple[str, Callable]]:
    tree = ast.parse(source_of(reference))
    names = list(inspect.signature(reference).parameters)
    for holder, key in _slots(tree):
        kept = holder[key]
        for words, new in _slips(kept, names, tree.body[0].body[-1]):
            holder[key] = new
            ast.fix_missing_locations(tree)
            yield words, _function(reference, tree)
        holder[key] = kept


def _slots(tree: ast.AST) -> Iterator[tuple[dict | list, str | int]]:
    """Yield where each node of a tree is held: in what, and at which key."""
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.arguments):
                continue
            if isinstance(value, ast.AST):
                yield vars(node), field
            elif isinstance(value, list):
                yield from ((value, n) for n, v in enumerate(value) if isinstance(v, ast.AST))


COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,),
}  # fmt: skip
OPERATIONS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult,
}  # fmt: skip
OTHERS = (
    "argmax argmin", "max min mean", "sum mean", "mean median sum", "any all", "floor rint ceil",
    "rint floor ceil trunc", "round int", "sin cos", "cos sin", "permutation sort", "abs",
)  # fmt: skip
NAMES = {first: rest for first, *rest in map(str.split, OTHERS)}


def _slips(node: ast.AST, parameters: list[str], end: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    """Yield what may stand in place of a node by mistake, after words that show none of it."""
    match node:
        case ast.Compare(ops=[op]):
            for other in COMPARISONS.get(type(op), ()):
                equal = {type(op), other} in ({ast.Lt, ast.LtE}, {ast.Gt, ast.GtE})
                words = "with the limit itself on the wrong side of a comparison"
                words = words if equal else "with a comparison the other way round"
                yield words, ast.Compare(node.left, [other()], node.comparators)
        case ast.BinOp(left, op, right):
            yield from (("without one of its terms or factors", side) for side in (left, right))
            if type(op) in OPERATIONS:
                other = ast.BinOp(left, OPERATIONS[type(op)](), right)
                yield "with another operation between two of its terms", other
            if isinstance(op, ast.Sub | ast.Div):
                yield "with the two sides of a `-` or `/` exchanged", ast.BinOp(right, op, left)
            match left:
                case ast.BinOp(first, ast.Add() | ast.Sub() as inner, last):
                    other = ast.BinOp(first, inner, ast.BinOp(last, op, right))
                    yield "without a pair of brackets", other
            match right:
                case ast.BinOp(first, ast.Add() | ast.Sub() as inner, last):
                    other = ast.BinOp(ast.BinOp(left, op, first), inner, last)
                    yield "without a pair of brackets", other
        case ast.UnaryOp(operand=operand):
            yield "without a sign, or without turning a condition round", operand
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            yield "with a number that is one too large", ast.Constant(value + 1)
            yield "with a number that is one too small", ast.Constant(value - 1)
        case ast.Name(id=name, ctx=ast.Load()):
            others = parameters if name in parameters else NAMES.get(name, ())
            for other in others:
                if other != name:
                    yield f"with `{other}` where `{name}` belongs", ast.Name(other, node.ctx)
        case ast.Subscript(value=value, ctx=ast.Load()):
            yield "with all of something of which a part is meant", value
        case ast.Attribute(value=value, attr=name, ctx=ast.Load()):
            for other in NAMES.get(name, ()):
                yield f"with `{other}` in place of `{name}`", ast.Attribute(value, other, node.ctx)
            if name == "T":
                yield "without transposing", value
        case ast.Call(function, arguments, keywords):
            name = getattr(function, "id", getattr(function, "attr", "a function"))
            for value in arguments[:1]:
                if not isinstance(value, ast.Starred):
                    yield f"without `{name}`", value
            if name == "range":
                for step in (ast.Add(), ast.Sub()):
                    stop = ast.BinOp(arguments[-1], step, ast.Constant(1))
                    other = ast.Call(function, [*arguments[:-1], stop], [])
                    yield "with a range that ends one too early or too late", other
                other = ast.Call(function, [ast.Constant(1), arguments[-1]], [])
                yield "with a range that begins at 1", other
            if isinstance(function, ast.Attribute):
                yield f"without `{name}`", function.value
            if len(arguments) > 1:
                other = ast.Call(function, [arguments[1], arguments[0], *arguments[2:]], keywords)
                yield f"with the arguments of `{name}` exchanged", other
            for n, keyword in enumerate(keywords):
                other = ast.Call(function, arguments, keywords[:n] + keywords[n + 1 :])
                yield f"without the argument `{keyword.arg}` of `{name}`", other
        case ast.Tuple(items, ast.Load()) if len(items) == 2:
            yield "with two values exchanged", ast.Tuple(items[::-1], node.ctx)
        case ast.Expr() | ast.Assign([ast.Subscript()]):
            yield "with a step left out", ast.Pass()
        case ast.AugAssign(target, op, value):
            yield "with a step left out", ast.Pass()
            yield "with a value replaced that is to be changed", ast.Assign([target], value)
            other = ast.Add() if isinstance(op, ast.Mult) else ast.Mult()
            yield "with another operation in a step", ast.AugAssign(target, other, value)
        case ast.For(body=body) | ast.With(body=body) | ast.FunctionDef(body=body):
            for n in range(len(body) - 1):
                order = [*body[:n], body[n + 1], body[n], *body[n + 2 :]]
                yield "with two steps in the other order", _with_body(node, order)
            if isinstance(node, ast.For):
                yield "with its `return` inside the loop", _with_body(node, [*body, end])
        case ast.If(body=body) if len(body) == 1:
            yield "without one of its conditions", ast.Pass()
        case ast.IfExp(body=body, orelse=other):
            yield from (("without one of its two cases", side) for side in (body, other))


def _with_body(node: ast.stmt, body: list[ast.stmt]) -> ast.stmt:
    new = copy.copy(node)
    new.body = body
    return new
