"""Other systems' names for our keyword arguments."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def keyword_aliases(
    **names: str,
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Return a decorator that lets a function be called with other names of its keywords, too.

    Its signature and docstring stay: the docstring has to tell of the aliases.

    Args:
        **names: alias = the function's own name.

    Raises:
        TypeError: when the function is called with an alias and with what it stands for.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def call(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> Result:
            for alias in names.keys() & keywords.keys():
                if names[alias] in keywords:
                    raise TypeError(f"'{alias}' is another name for '{names[alias]}': give one of them")
                keywords[names[alias]] = keywords.pop(alias)
            return function(*arguments, **keywords)

        return call

    return decorate
