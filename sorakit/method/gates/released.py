"""The authors' release: AdamW, then a threshold with a dead zone up to 2 xi; to replicate it."""

from typing import TYPE_CHECKING, final

from typing_extensions import override

from sorakit.method.gates import GateRule

if TYPE_CHECKING:
    import torch


@final
class Released(GateRule):
    """`released_threshold` in the place of Eq. 11, gates that start normal, a larger epsilon."""

    eps = 1e-6
    gate_init = "normal"
    scales = ("free",)

    @override
    def reach(self, gate: "torch.Tensor", metric: "torch.Tensor | None") -> "torch.Tensor":
        import torch

        # The dead zone ends below 2 xi, so the threshold lies just above half of what dies.
        half = gate.abs() / 2
        return torch.nextafter(half, torch.full_like(half, torch.inf))

    @override
    def threshold(
        self, gate: "torch.Tensor", xi: float, metric: "torch.Tensor | None"
    ) -> "torch.Tensor":
        from sorakit.method.prox import released_threshold

        return released_threshold(gate, xi)


VARIANT = Released()
