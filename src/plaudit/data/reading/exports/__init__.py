"""Exports of other tools, and the layouts of public preference data sets, as rows in our own layouts.

Open ``table.py`` first: it lists what is recognised, by which fields, and calls one function for each. ``item.py``
reads objects of any depth and notes what was read of them, so that the rest can be said.
"""
