"""The status file of a run: running, then what stopped it, if anything does."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from lightning.pytorch.utilities.exceptions import SIGTERMException

from sorakit.quoting import cut
from sorakit.records import RunWriter


@contextlib.contextmanager
def kept_status(writer: RunWriter) -> Iterator[None]:
    """Write running, and interrupted or failed where an error ends the block.

    Args:
        writer: The run folder.

    Raises:
        KeyboardInterrupt: For Ctrl-C; for SIGTERM, with that signal as its argument.
    """
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        writer.write_status("running")
        yield
    except BaseException as error:
        stopped_by = _signal_behind(error)
        if stopped_by is not None:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, on_interrupt)  # Lightning goes on ignoring it
            writer.write_status("interrupted")
            raise KeyboardInterrupt(*stopped_by) from error
        with contextlib.suppress(OSError):  # a full disk, which is what `error` tells of
            writer.write_status("failed", error=cut(f"{type(error).__name__}: {error}"))
        raise


def _signal_behind(error: BaseException) -> tuple[signal.Signals, ...] | None:
    """Return the arguments of the KeyboardInterrupt that an error stands for, or None.

    Lightning 2.6 turns Ctrl-C into SystemExit(1), and SIGTERM into an exception of its own.
    """
    if isinstance(error, SIGTERMException):
        return (signal.SIGTERM,)
    is_interrupt = isinstance(error, KeyboardInterrupt)
    return () if is_interrupt or isinstance(error.__context__, KeyboardInterrupt) else None
