"""Other ways to make a model safe, written from their papers: what our own experts are measured against.

They are written for the mini UNet of diffusers and live beside the benchmarks, because nobody should use
these copies for anything else. Each takes what its paper gives it and in addition the prompts of our pairs.
"""
