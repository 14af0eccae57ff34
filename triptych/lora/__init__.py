"""LoRA files: which there are, what is in them, and how they change a network's weights."""
