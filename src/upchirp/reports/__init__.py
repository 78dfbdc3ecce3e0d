"""Reports: a run, a comparison or a search as one self-contained HTML page with figures.

The modules are imported where a report is written: matplotlib takes most of a second.
"""
