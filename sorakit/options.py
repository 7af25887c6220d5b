"""From options, in files and on the command line, to validated run configurations."""

import dataclasses
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, cast, get_args, get_type_hints

from jsonargparse import ArgumentParser

from sorakit.config import RunConfig
from sorakit.option_errors import describe_type, in_plain_words, not_a_section
from sorakit.quoting import did_you_mean, quoted
from sorakit.variants import OPTIONS

Choice = dict[str, Any]
"""Values by dotted option."""

_VALUES_AT_ONCE = 32


def run_config(options: Mapping[str, Any]) -> RunConfig:
    """Return the configuration with nested `options`; the others have their defaults.

    Raises:
        ValueError: If an option is unknown, or a value is wrong.
    """
    for name in option_sections():
        if name in options and not isinstance(options[name], Mapping):
            raise ValueError(not_a_section(name, options[name], option_types()))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RunConfig, "run")
    try:
        return parser.instantiate(parser.parse_object({"run": dict(options)})).run
    except ArgumentError as error:
        message = one_line(str(error)).replace('Parser key "run.', 'Parser key "')
        told = in_plain_words(message, options=option_types(), arguments={})
        raise ValueError(told) from error


def checked_values(option: str, values: Sequence[Any]) -> list[Any]:
    """Return `values` of one option, converted to its type as `sorakit run` would.

    Many at a time: a parser a value takes longer than a large sweep may.

    Args:
        option: Dotted name, for example `method.r`.
        values: As YAML gives them.

    Raises:
        ValueError: If there is no such option, or a value has the wrong type.
    """
    types = option_types()
    if option not in types:
        raise ValueError(
            f"`{option}` must be an option of `sorakit run`, and is none."
            f"{did_you_mean(option, types)} See `sorakit run --help`."
        )
    parser = ArgumentParser(exit_on_error=False)
    for index in range(_VALUES_AT_ONCE):
        parser.add_argument(f"--{index}", type=types[option])
    converted: list[Any] = []
    for begin in range(0, len(values), _VALUES_AT_ONCE):
        chunk = {str(i): value for i, value in enumerate(values[begin : begin + _VALUES_AT_ONCE])}
        try:
            parsed = parser.parse_object(chunk, defaults=False)
        except ArgumentError as error:
            wrong = next((value for value in chunk.values() if not _fits(parser, value)), None)
            raise ValueError(
                f"`{option}` must be {describe_type(types[option])}, got {quoted(wrong)}."
            ) from error
        converted += [parsed[name] for name in chunk]
    return converted


@cache
def option_types() -> dict[str, Any]:
    """Return the type of every option by its dotted name."""
    types: dict[str, Any] = {}
    for name, kind in get_type_hints(RunConfig).items():
        if dataclasses.is_dataclass(kind):
            types |= {f"{name}.{key}": hint for key, hint in get_type_hints(kind).items()}
        else:
            types[name] = kind
    return types


@cache
def option_sections() -> tuple[str, ...]:
    """Return the names of the groups of options."""
    hints = get_type_hints(RunConfig).items()
    return tuple(name for name, kind in hints if dataclasses.is_dataclass(kind))


def with_nulls(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of `sorakit run` with null for None where an option may be null.

    `wandb agent` writes values as Python does: `--xi.end=None`.
    """
    types = option_types().items()
    nullable = {f"--{name}" for name, kind in types if type(None) in get_args(kind)}
    words: list[str] = []
    for word in arguments:
        name, equals, value = word.partition("=")
        if equals and value == "None" and name in nullable:
            words.append(f"{name}=null")
        elif word == "None" and words and words[-1] in nullable:
            words.append("null")
        else:
            words.append(word)
    return words


def split_options(words: Sequence[str]) -> tuple[list[str], Choice]:
    """Return the words that are no options of a run, and the options, typed as by `sorakit run`.

    Raises:
        ValueError: If a value is wrong, or missing.
    """
    types = option_types()
    rest: list[str] = []
    given: list[str] = []
    names: list[str] = []
    waiting = iter(words)
    for word in waiting:
        name, equals, _ = word.partition("=")
        if not name.startswith("--") or name[2:] not in types:
            rest.append(word)
            continue
        names.append(name[2:])
        given.append(word)
        if not equals:
            value = next(waiting, None)
            if value is None:
                raise ValueError(f"`{name}` must have a value, got none.")
            given.append(value)
    parser = ArgumentParser(exit_on_error=False)
    for name in dict.fromkeys(names):
        parser.add_argument(f"--{name}", type=types[name])
    try:
        values = parser.parse_args(with_nulls(given))
    except ArgumentError as error:
        told = in_plain_words(one_line(str(error)), options=types, arguments={})
        raise ValueError(told) from error
    return rest, {name: values[name] for name in names}


def flatten(content: Mapping[str, Any]) -> Choice:
    """Return nested options by dotted name."""
    return dict(_leaves(content, ""))


def _leaves(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        # An option whose value is a mapping is one: method.rank_pattern.
        if isinstance(value, dict) and value and f"{prefix}{name}" not in option_types():
            yield from _leaves(cast(dict[str, Any], value), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def describe_variants(parser: ArgumentParser) -> None:
    """Let the help of options whose values are files say what each of the files says of itself."""
    for family in OPTIONS:
        [action] = [action for action in parser._actions if action.dest == family.option]  # pyright: ignore[reportPrivateUsage]  # argparse has no public list
        sentences = " ".join(f"{name}: {family.sentence(name)}" for name in family.names)
        action.help = f"{action.help} {sentences}"


def one_line(message: str) -> str:
    """Return jsonargparse's message on one line."""
    return " ".join(message.split())


def _fits(parser: ArgumentParser, value: Any) -> bool:
    try:
        parser.parse_object({"0": value}, defaults=False)
    except ArgumentError:
        return False
    return True
