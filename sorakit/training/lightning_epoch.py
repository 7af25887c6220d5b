"""The one place where Lightning's loop is told when an epoch ends, and whether it validates."""

import lightning.pytorch as pl


def end_epoch(trainer: pl.Trainer, batch_idx: int, *, validate: bool) -> None:
    """End the epoch of Lightning after the current batch, with or without validation.

    Call it from `on_train_batch_end`. There is no public way in Lightning 2.6: `should_stop` ends
    the whole fit, and -1 from `on_train_batch_start` takes a batch that is lost, is asked of the
    module only, and never validates
    (https://github.com/Lightning-AI/pytorch-lightning/issues/1406, .../issues/4481).

    Args:
        trainer: In `fit`, with `check_val_every_n_epoch` of 1 at its start.
        batch_idx: Index of the current batch in its epoch.
        validate: Whether validation follows.
    """
    trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True
    trainer.val_check_batch = batch_idx + 1
    # An epoch validates where its number, from 1, is a multiple of this.
    trainer.check_val_every_n_epoch = 1 if validate else trainer.current_epoch + 2
