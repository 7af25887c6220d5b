"""AdamW, then the soft threshold in AdamW's metric: `xi / (sqrt(v_hat) + eps)` for each gate."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.method.gates import GateRule

if TYPE_CHECKING:
    import torch


@final
class AdamWMetric(GateRule):
    """A proximal step in the norm of AdamW's own step: a large past gradient protects a gate."""

    needs_metric = True

    @override
    def reach(self, gate: "torch.Tensor", metric: "torch.Tensor | None") -> "torch.Tensor":
        assert metric is not None
        return gate.abs() * metric

    @override
    def threshold(
        self, gate: "torch.Tensor", xi: float, metric: "torch.Tensor | None"
    ) -> "torch.Tensor":
        from sorakit.method.prox import metric_threshold

        assert metric is not None
        return metric_threshold(gate, xi, metric=metric)


VARIANT = AdamWMetric()
