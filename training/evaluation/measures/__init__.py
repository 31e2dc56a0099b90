"""Measures beside the judges: CLIPScore, FID, meaning of sentences."""
