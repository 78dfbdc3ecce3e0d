"""What the device does with a batch: crops, normalises, erases and mixes it."""
