"""From files to records, and from records to rows of token ids.

Open ``load.py`` first (a source to records of one kind). ``reading/`` holds what reads each format; ``convert.py``
makes one kind of record of another, ``write.py`` writes them, ``lint.py`` looks for suspicious rows. ``split.py`` says
what is trained on and in which order, ``chat.py`` turns texts into token ids, ``fit.py`` keeps to a length,
``collate.py`` makes batches (the only module here that loads torch).
"""
