"""Trainings as values: settings, recipes, and the optimizer they ask for."""
