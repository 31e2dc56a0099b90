"""The judges of pictures, one file each, listed in `EVALUATORS` of `training.evaluation`.

A judge's file ends with a `KIND`: its presets, licence, and how to make it. To add one, write its file
and its line in `EVALUATORS`. A judge that needs a package imports it when it is made, through
`training.evaluation.optional`. `heads` and `clip_vision` serve judges that work on CLIP image embeddings.
"""
