"""Safety experts: LoRA factors, their files, and what attaches, extracts or describes them."""
