"""From rows of a file, hub or data set to prompt groups on disk. No model, no device."""
