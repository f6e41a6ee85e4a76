"""What a run achieved, read from its files: intervals, report cards, and one page in plain words."""
