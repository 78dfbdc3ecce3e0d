"""One run in its folder: how it begins and goes on, what stops it, and what it keeps."""
