"""Gates that came back from zero during the steps of `gates_flickering`."""

from sorakit.measures import Measure

VARIANT = Measure(unit="gates", key="gate/revived", of=lambda stage: stage.gates_revived)
