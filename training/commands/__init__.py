"""The commands of `python -m training`. To add one: write its file, then add its line to `COMMANDS`.

The file defines `add_arguments(parser)`, which ends with `parser.set_defaults(run=...)`; `run` takes the
parsed arguments and returns an `Answer`. The file is imported only if its command is chosen. Modules that
only `run` needs are imported inside it, so that --help is fast.
"""

COMMANDS = {  # name of the command and of its file -> summary
    "mini": "Build a mini model: a checkpoint, its preference pairs and its judge",
    "pairs": "Make, check, weigh and import preference pairs, and rewrite prompts",
    "train": "Train a safety expert on preference pairs",
    "merge": "Merge safety experts of one base model into one LoRA",
    "evaluate": "Measure the safety of a base model and its experts, and what the experts cost",
    "stress": "Attack your own model and measure how often it is unsafe: by concept directions or rewordings",
    "guard": "Train and test a guard that blocks unsafe prompts before anything is drawn",
    "judge": "Train and test a judge of pictures on your own pairs",
    "extract": "Turn the difference between a tuned model and its base into an expert",
    "info": "Describe a safety expert or another LoRA",
}
