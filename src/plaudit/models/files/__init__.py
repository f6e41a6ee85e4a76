"""Models and tokenizers on disk: found, loaded, made safe to pad, and saved so that plain transformers reads them.

Read `load.py` first. `source.py` says what a name means, `vocabulary.py` gives every tokenizer its own pad token,
`saving.py` merges adapters and writes, `adapter.py` keeps a reward model's adapter beside the merged model.
"""
