"""The quickstart: an artificial language of reviews with a known true preference, and the pipeline that learns in it.

Open ``quickstart.py`` first (the pipeline), then ``reviews.py`` (prompts, demonstrations, pairs). ``review_words.py``,
``review_grammar.py`` and ``review_score.py`` are the language and its true score; ``simulated.py`` are annotators who
see that score with noise.
"""
