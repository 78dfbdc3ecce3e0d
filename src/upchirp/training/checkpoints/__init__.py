"""States and weights on disk: written whole or not at all, described, and read without running what they hold."""
