"""How well a model does on images it was not trained on."""
