"""What sets configurations apart.

Two paths are two seeds of one curve only if nothing but the seed differs.
"""

from collections.abc import Mapping
from typing import Any

import yaml


def differences(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return name -> what sets one experiment apart from the others, "" where all agree.

    Args:
        configs: Name -> options.
    """
    keys = sorted({key for option in configs.values() for key in option})
    different = [k for k in keys if len({_text(o.get(k)) for o in configs.values()}) > 1]
    return {
        name: ", ".join(f"{key}={_text(option.get(key))}" for key in different)
        for name, option in configs.items()
    }


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def agrees(value: object, text: str) -> bool:
    """Return whether an option has the value that a command line gives as `text`."""
    return str(value) == text or value == yaml.safe_load(text)
