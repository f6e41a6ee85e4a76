"""The run directory: its files, its lock, its checkpoints, and how a run goes on. Start with `directory.py`."""
