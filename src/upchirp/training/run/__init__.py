"""One run in its folder, from configuration to exported weights."""
