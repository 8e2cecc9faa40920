"""Which groups a step takes, how they are cut into micro-batches, and how those are laid out as tensors."""
