"""Everything that runs without ComfyUI; `python -m training` is its command line.

system/      tensors, pictures, tables, paths and processes; nothing here is specific to AlignGuard
rules/       categories of harm, the rule on minors, and word lists
config/      the options of every task: default, range and tooltip, once
models/      FAMILIES, FLOW_FAMILIES: the lines of base models; noise, conditioning, autoencoders, encoders
experts/     LoRA factors, their files, the adapter on a UNet, and extraction from tuned models
pairs/       PAIR_SOURCES: preference pairs, read, checked, encoded and cached
losses/      LOSSES: one file per objective
trainer/     a training run, from encoded pairs to an expert on disk
merging/     MERGE_METHODS: several experts into one, and the calibration that some methods need
mini/        the mini model of a few MB: its weights, its recipe and its small world
evaluation/  EVALUATORS: judges of pictures; measures, the benchmark and the attacks
guards/      GUARDS: what stands in front of a model and reads its prompts; the file format of all of them
making/      preference pairs drawn, weighed and rewritten; REWRITERS
commands/    COMMANDS: one file per command

A wing imports only from wings above its own, as `tests/test_architecture.py` says.
"""
