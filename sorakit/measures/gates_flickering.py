"""Gates whose zero status changed during the last pass of the stage.

(Or its last segment, where that is shorter.) Those that died then, and those that came and went.
"""

from sorakit.measures import Measure

VARIANT = Measure(unit="gates", key="gate/flickering", of=lambda stage: stage.gates_flickering)
