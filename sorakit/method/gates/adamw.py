"""AdamW, then the soft threshold with one xi for all gates: `g <- T_xi(AdamW(g))`."""

from sorakit.method.gates import GateRule

VARIANT = GateRule()
