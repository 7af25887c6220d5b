"""Dense training as a user of the Hugging Face Trainer and PEFT's LoRA does it, as one process.

    python experiments/benchmarks/trainer_rival.py DATA.json BACKBONE EPOCHS

trains r = 8 on all linear layers in bf16, with batches of similar length and one evaluation at the
end, and prints CPU seconds of the process. DATA.json has `train`, `memorization` and
`generalization`, lists of {"text": [...], "label": int}; `paths.py` writes it.
"""

import json
import os
import resource
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from datasets import Dataset
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)


def main() -> None:
    """Train and evaluate."""
    data = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    backbone, epochs = sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(backbone)

    def tokens(rows: list[dict[str, list[str] | int]]) -> Dataset:
        table = Dataset.from_list([{"texts": row["text"], "label": row["label"]} for row in rows])
        return table.map(
            lambda row: tokenizer(*row["texts"], truncation=True, max_length=64),
            remove_columns=["texts"],
        )

    splits = {name: tokens(rows) for name, rows in data.items()}
    model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=2)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type=TaskType.SEQ_CLS)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=128,
            learning_rate=1e-3,
            bf16=True,
            train_sampling_strategy="group_by_length",
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            logging_steps=10,
        )
        trainer = Trainer(
            model=get_peft_model(model, config),  # pyright: ignore[reportArgumentType]  # as PEFT documents
            args=arguments,
            train_dataset=splits["train"],
            eval_dataset={  # pyright: ignore[reportArgumentType]  # documented, not typed
                name: splits[name] for name in ("memorization", "generalization")
            },
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        trainer.train()
        print(trainer.evaluate())
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"cpu {used.ru_utime + used.ru_stime:.2f}")


if __name__ == "__main__":
    main()
