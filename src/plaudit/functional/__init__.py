"""Pure functions on tensors: no models, no config, no files. A mask is True where the position counts."""
