"""What a run leaves behind and shows while it goes: its files, the console, TensorBoard."""
