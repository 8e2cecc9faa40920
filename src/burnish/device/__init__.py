"""The only room that names a device: choice, memory, random state, precision."""
