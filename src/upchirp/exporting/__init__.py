"""Trained weights for other libraries: under their names, as a folder of the Hugging Face hub, or as a program."""

from upchirp.exporting.formats import FORMATS, Format, export

__all__ = ["FORMATS", "Format", "export"]
