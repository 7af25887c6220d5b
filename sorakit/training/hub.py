"""An exported adapter as a new repository of the Hugging Face Hub: in one commit, or not at all."""

import shutil
import tempfile
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # of httpx or httpx2, by its version
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import disable_progress_bars

from sorakit.options import one_line
from sorakit.quoting import cut

_REASON = 300
"""Characters of what a server says."""


@dataclass(frozen=True, kw_only=True)
class NewRepository:
    """A repository that can be made: its name is free, and the token was taken.

    Attributes:
        repo_id: OWNER/NAME.
        private: Whether only its owner will see it.
    """

    repo_id: str
    private: bool


def new_repository(name: str, *, private: bool) -> NewRepository:
    """Ask the Hub whether a repository can be made; nothing is made.

    Args:
        name: OWNER/NAME, or NAME below the owner of the token.
        private: Whether only its owner will see it.

    Raises:
        ValueError: If the name is none or taken, there is no token, or the Hub refuses it.
        ConnectionError: If the Hub does not answer.
    """
    api = HfApi()
    if constants.HF_HUB_OFFLINE:
        raise ValueError(
            f"`--push_to_hub` must be able to reach the Hub, got {name!r} while HF_HUB_OFFLINE is "
            "set. Unset it."
        )
    if get_token() is None:
        raise ValueError(
            f"`--push_to_hub` needs a token that may write, got {name!r} and none. Run "
            "`hf auth login`, or set HF_TOKEN."
        )
    try:
        owner = str(api.whoami()["name"])
        repo_id = name if "/" in name else f"{owner}/{name}"
        taken = api.repo_exists(repo_id)
    except HFValidationError as error:
        raise ValueError(
            "`--push_to_hub` must be OWNER/NAME or NAME, of letters, digits, '-', '_' and '.', got "
            f"{name!r}."
        ) from error
    except (HTTPError, OfflineModeIsEnabled) as error:
        raise _failure(error, name, "Nothing was written.") from error
    if taken:
        raise ValueError(
            f"`--push_to_hub` must be a new repository, got {repo_id!r}, which exists. Choose "
            "another name, or delete it on the Hub first."
        )
    return NewRepository(repo_id=repo_id, private=private)


def push(folder: Path, repository: NewRepository, *, replaced: dict[str, str], note: str) -> str:
    """Make a repository with the files of a folder, in one commit, and return its address.

    If the files cannot be sent, the repository is deleted again.

    Args:
        folder: The export.
        repository: What `new_repository` has found to be free.
        replaced: Name of a file -> its text on the Hub, where that is not the one in `folder`.
        note: First line of the commit.

    Raises:
        ValueError: If the Hub refuses it; nothing is on the Hub then.
        ConnectionError: If the Hub does not answer any more.
    """
    disable_progress_bars()
    api = HfApi()
    name = repository.repo_id
    kept = f"The export is in {str(folder)!r}, and nothing of it on the Hub."
    with tempfile.TemporaryDirectory(prefix="sorakit-push-") as scratch:
        sent = Path(shutil.copytree(folder, Path(scratch) / "export"))
        for file, text in replaced.items():
            (sent / file).write_text(text, "utf-8")
        try:
            made = api.create_repo(name, private=repository.private, exist_ok=False)
        except (HTTPError, OfflineModeIsEnabled) as error:
            raise _failure(error, name, kept) from error
        try:
            api.upload_folder(repo_id=name, folder_path=sent, commit_message=note)
        except (HTTPError, OSError, ValueError, RuntimeError) as error:
            try:
                api.delete_repo(name, missing_ok=True)
            except (HTTPError, OSError):
                kept = (
                    f"The export is in {str(folder)!r}; on the Hub {name} is an empty repository, "
                    "which could not be deleted again."
                )
            # of a large file the client says in a RuntimeError which it was, and why in its cause
            cause = error.__cause__ if isinstance(error, RuntimeError) else error
            shown = cause if isinstance(cause, Exception) else error
            raise _failure(shown, name, kept) from error
        except BaseException:  # Ctrl-C
            api.delete_repo(name, missing_ok=True)
            raise
    return str(made)


def _failure(error: Exception, name: str, what_is_left: str) -> Exception:
    """Return what a user is told: what the Hub refused, or that it did not answer."""
    if isinstance(error, HfHubHTTPError):
        code = error.response.status_code
        said = cut(one_line(error.server_message or str(error)), _REASON).rstrip(".")
        if code == HTTPStatus.CONFLICT:
            return ValueError(
                f"`--push_to_hub` must be a new repository, got {name!r}, which exists. Choose "
                f"another name. {what_is_left}"
            )
        if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return ValueError(
                f"`--push_to_hub` needs a token that may write to {name!r}, got one that the Hub "
                f"refuses ({code}: {said}). {what_is_left}"
            )
        return ValueError(
            f"`--push_to_hub` must be taken by the Hub, got {name!r}, which it refused "
            f"({code}: {said}). {what_is_left}"
        )
    host = constants.ENDPOINT
    said = cut(one_line(str(error)) or type(error).__name__, _REASON).rstrip(".")
    if not isinstance(error, (HTTPError, OSError)):  # an answer that is none
        return ValueError(
            f"`--push_to_hub` must be understood by {host}, got {name!r}: {said}. {what_is_left}"
        )
    return ConnectionError(f"No answer from {host} for {name!r} ({said}). {what_is_left}")
