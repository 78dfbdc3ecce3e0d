"""What a model is pre-trained to do without labels: one file for each method."""
