"""Weights & Biases: a mirror of run folders, live or afterwards, and the dashboard as code."""

import os

# wandb's reports on its own errors hold paths of this machine, and it writes to the terminal when
# no server takes them. Read when wandb is imported.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
