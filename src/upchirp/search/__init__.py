"""Search: the curriculum for one's own data and model, by the paper's algorithms."""
