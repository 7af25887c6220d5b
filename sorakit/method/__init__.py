"""SoRA: the operators, the gate update rules, the PEFT tuner, and pruning to plain LoRA."""
