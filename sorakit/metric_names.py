"""Every key that is logged or recorded, once.

Keys with a slash go to loggers and the progress bar; the others are columns of the run folder's
tables.
"""

# Loggers: step is the optimizer step in the dense stage, `NUM_NONZERO_PARAMS` for everything per
# stage.
TRAIN_LOSS = "train/loss"
LEARNING_RATE = "optim/lr"
XI = "gate/xi"
LAMBDA = "gate/lambda"
NUM_NONZERO_PARAMS = "gate/num_nonzero_params"
MEMORIZATION = "memorization/score"
GENERALIZATION = "generalization/score"
MEMORIZATION_LOSS = "memorization/loss"
GENERALIZATION_LOSS = "generalization/loss"
NONZERO_RANK_PREFIX = "gate/nonzero_rank/"

# Splits of `examples.parquet` and of a stage's scores.
MEMORIZATION_SPLIT = "memorization"
GENERALIZATION_SPLIT = "generalization"
TEST_SPLIT = "test"
