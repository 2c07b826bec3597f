"""Errors for people: one line that says what is wrong, where, and what to do."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(ValueError):
    """Something the user can fix. The command line prints it as one line and exits with status 2."""

    def __str__(self) -> str:
        # A DataLoader raises a worker's error anew with the traceback as its message; our line is its last.
        return super().__str__().split(f"{type(self).__name__}: ")[-1].strip()


def closest(word: str, candidates: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the candidate nearest to `word`, or "" where none is near."""
    match = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return f" Did you mean '{match[0]}'?" if match else ""


def require_known(kind: str, word: str, candidates: Iterable[str]) -> None:
    """Raise UserError for a name that is none of `candidates`: with the closest one, then all of them."""
    names = list(candidates)
    if word not in names:
        raise UserError(f"unknown {kind} '{word}'.{closest(word, names)} Known: {', '.join(names)}.")


def listed(names: Sequence[str]) -> str:
    """Return the first five names, and how many more there are; "none" of none."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) + more) or "none"


def one_line(error: BaseException) -> str:
    """Return an error's words in one line, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: Exception) -> str:
    """Return what to tell of an error: its first line, or its kind where it has no words."""
    return next(iter(str(error).splitlines()), type(error).__name__)
