"""Everything that runs without ComfyUI."""
