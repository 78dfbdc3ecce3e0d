"""From the bytes of an image to an augmented picture at a bandwidth, in the loader's workers."""
