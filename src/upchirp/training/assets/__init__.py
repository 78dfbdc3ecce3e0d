"""Images, models and trained weights, opened as settings name them."""
