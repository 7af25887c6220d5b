"""The ranks that a stage leaves, by module, as a file: the `rank_pattern` of `peft.LoraConfig`.

A JSON object from the full name of a module to its rank. Modules of rank 0 do not stand in it: they
are not adapted. PEFT takes the first key that a module's name ends in, so longer names come first.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from sorakit.quoting import cut, quoted

RANK_PATTERN_FILE = "rank_pattern.json"
_OPTION = "method.rank_pattern"


def rank_pattern_text(ranks: Mapping[str, int]) -> str:
    """Return the file of some ranks, by the full names of their modules; zeros are left out."""
    kept = {name: rank for name, rank in ranks.items() if rank > 0}
    return json.dumps(dict(sorted(kept.items(), key=_longest_first)), indent=1) + "\n"


def read_rank_pattern(file: Path) -> dict[str, int]:
    """Return the ranks in a file, in its order.

    Raises:
        ValueError: If it cannot be read, or holds no ranks.
    """
    try:
        content: Any = json.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"`{_OPTION}` must be a file that can be read, got {quoted(str(file))}."
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"`{_OPTION}` must be JSON, got {quoted(str(file))} ({cut(str(error), 200)})."
        ) from error
    return checked_rank_pattern(content)


def checked_rank_pattern(content: object) -> dict[str, int]:
    """Return ranks by module, the longest name first.

    Raises:
        ValueError: If it is no mapping from names to whole numbers from 1 on, or is empty.
    """
    ranks = cast(dict[Any, Any], content) if isinstance(content, dict) else {}
    fits = all(isinstance(name, str) and _is_rank(rank) for name, rank in ranks.items())
    if not ranks or not fits:
        raise ValueError(
            f"`{_OPTION}` must hold module names and ranks >= 1, got "
            f"{quoted(cast(object, content))}. A stage without a rank is the floor: "
            "`method.name` head_only."
        )
    return dict(sorted(ranks.items(), key=_longest_first))


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _longest_first(item: tuple[str, int]) -> tuple[int, str]:
    return -len(item[0]), item[0]
