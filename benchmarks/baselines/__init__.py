"""Other ways to make a model safe, written from their papers, as baselines for our experts.

They are written for the mini UNet of diffusers and live beside the benchmarks, because nobody should use
these copies for anything else. Each gets what its paper gives it, and also the prompts of our pairs.
"""
