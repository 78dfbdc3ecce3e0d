"""Files in tar archives: where each lies, without unpacking."""
