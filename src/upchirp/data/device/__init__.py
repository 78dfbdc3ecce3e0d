"""Work on a batch on the device: crop, normalise, erase and mix."""
