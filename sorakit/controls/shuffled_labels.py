"""Null model: Algorithm 1 on permuted training labels, from the first step on."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.controls import Control

if TYPE_CHECKING:
    import sorakit.tasks.base


@final
class ShuffledLabels(Control):
    """Only the data differ."""

    is_null_model = True
    changes_task = True

    @override
    def change_task(self, task: "sorakit.tasks.base.Task") -> "sorakit.tasks.base.Task":
        from sorakit.tasks.label_noise import with_shuffled_labels

        return with_shuffled_labels(task, self._seed)


VARIANT = ShuffledLabels
