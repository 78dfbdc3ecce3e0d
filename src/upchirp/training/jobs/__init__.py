"""The jobs: train, evaluate, predict, probe, and tell a price, each from its settings to its result."""
