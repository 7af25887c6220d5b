"""Training: the Lightning module, the data, the xi schedule, and one whole run."""
