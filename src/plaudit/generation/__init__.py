"""Generators: from prompts to rollouts, each token with the log-prob it was drawn with.

Read `native.py` first; it is the decoding loop, and `live.py` is that of requests which come while others are being
drawn. `steps.py` draws one token of each row. `batches.py` knows which responses are being drawn, `decoder.py` runs
the model one token at a time, `cache.py` holds keys and values, `sampling.py` draws tokens from logits,
`fixed_shapes.py` records steps as CUDA graphs.
"""

import plaudit.models  # noqa: F401 - first of all: it silences what transformers brings in
