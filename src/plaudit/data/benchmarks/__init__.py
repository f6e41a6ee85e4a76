"""The files of published benchmarks of reward models, read as cases: a prompt, its responses, and which are right.

`names.py` has the subsets and weights as they were published, `layouts.py` tells the files apart by their columns and
reads a row, `load.py` reads a source.
"""
