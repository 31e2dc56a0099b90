"""Training of one safety expert; `train_expert` is the way in.

A run is planned (`plan`), then `loop` takes steps: `draws` chooses pairs and noise, `batch`
fetches their rows, `step` runs the UNet without and with the adapter, and `figures` forms the loss of the
objective. `bank` keeps errors of the base model, `validation` measures held-out pairs, and
`pair_weighting` weighs pairs by their scores. `run_folder` and `state` keep what a run needs to resume,
and `result` is what it ends with.

A new objective needs no change here: see `training.losses`.
"""
