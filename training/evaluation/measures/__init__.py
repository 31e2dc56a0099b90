"""Measures beside the judges, for which the user brings the model: CLIPScore, FID, similarity of sentences.

To add one, write its file here and load it in `training.evaluation.benchmark.measures`, which also says
why a measure was not taken.
"""
