"""What shows and keeps the figures of a run while it goes, and the table of all metrics.

A new place for figures is a class that fulfils `plaudit.tracking.tracker.Tracker`, and a line in `TRACKERS` beside it.
"""
