"""One model for all processes that train together, and the device that each computes on."""
