"""The training that made the shipped weights; the mini model can be used without it."""
