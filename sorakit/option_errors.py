"""What jsonargparse says of a wrong option, told in the words of sorakit's other messages."""

import re
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin

from sorakit.quoting import did_you_mean, quoted

_KEY = re.compile(r'Parser key "([^"]+)":\s*(.*)', re.DOTALL)
_VALUE = re.compile(r".*(?:Got value|Given value): (.*)\Z", re.DOTALL)  # the last one
_SECTION = re.compile(r"Unable to load config '(.*?)' - ", re.DOTALL)
_NO_OPTION = re.compile(
    r"unrecognized arguments: (\S+)|Subcommand '\w+' does not accept option '([^']+)'"
)
_NO_VALUE = re.compile(r"argument (--\S+): expected one argument")
_NO_COMMAND = re.compile(r"argument subcommand: invalid choice: (.*) \(choose from (.*)\)")
_NO_SUBCOMMAND = 'expected "subcommand" to be one of'
_REQUIRED = "the following arguments are required: "
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}

_DATA = "data"
"""The argument of `sorakit study` that people try elsewhere, or leave out there."""


def in_plain_words(
    message: str, *, options: Mapping[str, Any], arguments: Mapping[str, Any]
) -> str:
    """Return a message of jsonargparse as sorakit says it; one of another kind as it is.

    Args:
        message: The message, on one line.
        options: Type of every option of a run by its dotted name.
        arguments: Type of every other argument of the command by its name in the parser.
    """
    if message.startswith(_REQUIRED):
        names = [_argument(name) for name in message.removeprefix(_REQUIRED).split(", ")]
        return f"{' and '.join(names)} must be given."
    if message.startswith(_NO_SUBCOMMAND):
        return "A command must be given, got none. `sorakit --help` lists them."
    if found := _NO_VALUE.match(message):
        return f"`{found[1]}` must be followed by a value, got none."
    if found := _NO_COMMAND.match(message):
        commands = found[2].replace("'", "")
        hint = did_you_mean(found[1].strip("'"), commands.split(", "))
        return f"The command must be one of {commands}, got {found[1]}.{hint}"
    if found := _NO_OPTION.match(message):
        name = (found[1] or found[2]).partition("=")[0]
        bare = name.removeprefix("--")
        known = [*options, *(name.replace("_", "-") for name in arguments if name not in options)]
        is_word = bool(found[1]) and not name.startswith("-")
        what = "an argument" if is_word else "an option"
        hint = did_you_mean(bare, known, prefix="--" if found[1] else "")
        if is_word and _DATA in arguments:
            hint = f" Data are given by name: --{_DATA} FILE."
        elif bare == _DATA and _DATA not in arguments:
            hint = (
                " A file of your own is --task.name files --task.train_file FILE; `sorakit study` "
                f"takes --{_DATA}."
            )
        return f"`{name}` must be {what} of this command, and is none.{hint} See --help."
    if not (found := _KEY.match(message)):
        return message
    key, rest = found[1], found[2]
    if section := _SECTION.match(rest):
        return not_a_section(key, section[1], options)
    value = _VALUE.match(rest)
    if value is None:
        return message
    if key in options:
        return f"`{key}` must be {describe_type(options[key])}, got {quoted(value[1])}."
    if key in arguments:
        return f"{_argument(key)} must be {describe_type(arguments[key])}, got {quoted(value[1])}."
    return message


def not_a_section(name: str, value: object, options: Iterable[str]) -> str:
    """Return the message for a value where a group of options must stand.

    Args:
        name: The group.
        value: What stands there.
        options: Dotted names of all options.
    """
    first = next((option for option in options if option.startswith(f"{name}.")), name)
    return (
        f"`{name}` must be a group of options, got {quoted(value)}. Give an option of it, such as "
        f"`{first}`."
    )


def describe_type(hint: Any) -> str:
    """Return what a value of a type is, in plain words: "a whole number, or null"."""
    if get_origin(hint) in (Union, UnionType):
        kinds = get_args(hint)
        words = [describe_type(kind) for kind in kinds if kind is not NoneType]
        return ", or ".join([*words, *(["null"] if NoneType in kinds else [])])
    if get_origin(hint) is Literal:
        values = [str(value) for value in get_args(hint)]
        return values[0].lower() if len(values) == 1 else f"one of {', '.join(values)}"
    if get_origin(hint) is list:
        [kind] = get_args(hint)
        return f"a list of {_PLURALS[kind]}"
    if get_origin(hint) is dict:
        _, kind = get_args(hint)
        return f"names with {_PLURALS[kind]}"
    return _WORDS[cast(type, hint)]


def _argument(name: str) -> str:
    """Return how an argument is written: options with dashes, others as the help shows them."""
    bare = name.rpartition(".")[2]
    return f"`{bare.upper()}`" if bare in ("run", "runs") else f"`--{bare.replace('_', '-')}`"
