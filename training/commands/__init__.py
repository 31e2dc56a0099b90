"""The commands of `python -m training`. To add one: write its file, then add its line here.

The file has `add_arguments(parser)`, which ends with `parser.set_defaults(run=...)`: f(args) -> Answer. It
is imported when its command is chosen; what only `run` needs is imported there, so that --help is quick.
"""

COMMANDS = {  # name of the command and of its file -> what it does
    "mini": "Build the mini model: a checkpoint, its preference pairs and its judge",
    "pairs": "Work with folders of preference pairs",
    "train": "Train a safety expert on preference pairs",
    "merge": "Merge safety experts of one base model into one LoRA",
    "evaluate": "Measure how safe a base model and its experts are, and what that costs",
    "stress": "Attack your own model and say how often it is unsafe: by concept directions or rewordings",
    "extract": "Turn the difference of a tuned model and its base into an expert",
    "info": "Say what is known about a safety expert or another LoRA",
}
