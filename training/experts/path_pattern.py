"""PEFT's expressions for layer paths, matched in polynomial time, because a file is not trusted.

Python's `re` can run for years on a hostile expression. This matcher follows all alternatives at once: for
every part of an expression and every position it computes, once, the set of positions where the part can end.
"""

import re
from itertools import accumulate

_MAX_LENGTH = 500  # of an expression; PEFT's own examples have 40 characters
_MAX_DEPTH = 20  # of groups in groups, because the matcher is recursive
_MAX_STEPS = 3_000_000  # parts times positions, about ten seconds; 20 expressions for SDXL take a third
_PLAIN = re.compile(r"[\w.]+")  # a path: no part of it repeats, so `re` matches it in linear time
_TOKEN = re.compile(
    r"\\[dDwWsS]|\\[^\w\s]|\[\^?\]?(?:\\.|[^\]\\\[])*\]"  # one character: a kind, an escaped one, or a class
    r"|\(\?:|[(|)^$]|[*+?]\??(?!\+)|\{\d{1,4}(?:,\d{0,4})?\}\??(?!\+)|[^\\\[\](){}*+?|^$]"
)
_COUNTS = {"*": (0, None), "+": (1, None), "?": (0, 1)}

_Part = tuple  # (kind, ...): char, start, end, all of its parts, any of its parts, repeat of a part


class PathPatterns:
    """Expressions that choose layers as PEFT's `rank_pattern` and `alpha_pattern` do.

    PEFT looks for the first expression that matches the whole path, or its end behind a dot.

    Args:
        name: of the table, in errors.
        expressions: in the order of the file.

    Raises:
        ValueError: naming the expression, if it is not valid, too long, or refers to what it matched before.
    """

    def __init__(self, name: str, expressions: list[str]) -> None:
        self._name, self._steps = name, 0
        self._patterns = {text: self._compiled(text) for text in expressions}

    def first_match(self, path: str) -> str | None:
        """Return the first expression that matches a path, or None.

        Raises:
            ValueError: if the expressions of this table took more steps than any real ones need.
        """
        return next((text for text in self._patterns if self._matches(text, path)), None)

    def _matches(self, text: str, path: str) -> bool:
        pattern = self._patterns[text]
        if isinstance(pattern, re.Pattern):
            self._count()
            return bool(pattern.match(path))
        starts = [0, *(match.end() for match in re.finditer(r"\.", path))]
        ends: dict[tuple[int, int], frozenset[int]] = {}
        return any(len(path) in self._ends(pattern, path, start, ends) for start in starts)

    def _ends(
        self, part: _Part, path: str, start: int, ends: dict[tuple[int, int], frozenset[int]]
    ) -> frozenset[int]:
        """Return the positions where a part can end if it begins at a position."""
        key = (id(part), start)
        if key not in ends:
            self._count()
            ends[key] = frozenset(self._positions(part, path, start, ends))
        return ends[key]

    def _positions(
        self, part: _Part, path: str, start: int, ends: dict[tuple[int, int], frozenset[int]]
    ) -> set[int]:
        kind, *rest = part
        if kind == "char":
            return {start + 1} if start < len(path) and rest[0].fullmatch(path[start]) else set()
        if kind in ("start", "end"):
            return {start} if start == (0 if kind == "start" else len(path)) else set()
        if kind == "any":
            return {end for branch in rest[0] for end in self._ends(branch, path, start, ends)}
        if kind == "all":
            reached = {start}
            for item in rest[0]:
                reached = {end for position in reached for end in self._ends(item, path, position, ends)}
            return reached
        item, least, most = rest
        reached, results = {start}, {start} if least == 0 else set()
        for count in range(1, 1 + (len(path) + 1 + least if most is None else most)):
            before, reached = reached, {e for p in reached for e in self._ends(item, path, p, ends)}
            self._count(len(before))
            if count >= least:
                results |= reached
            if not reached or (reached == before and count >= least):
                break
        return results

    def _count(self, steps: int = 1) -> None:
        self._steps += steps
        if self._steps > _MAX_STEPS:
            raise ValueError(
                f"the expressions of {self._name} take too long to match. Write the layers' paths in full."
            )

    def _compiled(self, text: str) -> "re.Pattern[str] | _Part":
        if _PLAIN.fullmatch(text):
            return re.compile(rf"(?:.*\.)?{text}$")
        tokens = _TOKEN.findall(text) if len(text) <= _MAX_LENGTH else []
        try:
            if "".join(tokens) != text or _depth(tokens) > _MAX_DEPTH:
                raise ValueError
            part, rest = _any(tokens)
            if rest:
                raise ValueError
        except (ValueError, IndexError, RecursionError, re.error) as error:
            raise ValueError(
                f"{self._name} has an expression that cannot be used here: {text[:80]!r}. Use paths of "
                "layers, or expressions of letters, dots, classes, groups, alternatives and repetitions."
            ) from error
        return part


def _any(tokens: list[str]) -> tuple[_Part, list[str]]:
    """Return the alternatives at the start of the tokens, and the tokens behind them."""
    branches = []
    while True:
        items: list[_Part] = []
        while tokens and tokens[0] not in ("|", ")"):
            item, tokens = _repeated(tokens)
            items.append(item)
        branches.append(("all", items))
        if not tokens or tokens[0] == ")":
            return ("any", branches), tokens
        tokens = tokens[1:]


def _repeated(tokens: list[str]) -> tuple[_Part, list[str]]:
    token, tokens = tokens[0], tokens[1:]
    if token in ("(", "(?:"):
        part, tokens = _any(tokens)
        if tokens[0] != ")":
            raise ValueError
        tokens = tokens[1:]
    elif token in ("^", "$"):
        part = ("start" if token == "^" else "end",)
    else:
        part = ("char", re.compile(token, re.DOTALL))
    if tokens and tokens[0][0] in "*+?{":
        least, most = _counts(tokens[0].removesuffix("?") or "?")
        part, tokens = ("repeat", part, least, most), tokens[1:]
    return part, tokens


def _depth(tokens: list[str]) -> int:
    return max(accumulate((token in ("(", "(?:")) - (token == ")") for token in tokens), default=0)


def _counts(token: str) -> tuple[int, int | None]:
    if token in _COUNTS:
        return _COUNTS[token]
    least, comma, most = token.strip("{}").partition(",")
    return int(least), (int(most) if most else None) if comma else int(least)
