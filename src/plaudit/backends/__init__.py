"""Where the parts of a run are put together: in this process."""
