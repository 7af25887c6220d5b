"""Algorithm 1 as a state machine: what is trained next and when it ends. Free of torch.

`Schedule` says what the next optimizer step does, and `XiScheduler` (`sorakit.training`) does it.
A stage is a list of phases (`phases.py`); its numbers are pure functions of the configuration and
of `Position`, the whole state, which a checkpoint holds.
"""
