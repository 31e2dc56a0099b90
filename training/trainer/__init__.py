"""Training one safety expert; `train_expert` is the way in."""
