"""The judges: one file each, named in `EVALUATORS`."""
