"""What people prefer: from answers to votes, from votes to preferences, and how far both can be trusted.

Open ``annotation.py`` first: the plain values (items, answers, annotations) that everything here takes. ``votes.py``
turns answers into votes, ``aggregate.py`` votes into outcomes (``reliability.py`` weighs the voters), ``importing.py``
and ``exporting.py`` convert from and to training data. ``agreement.py``, ``quality.py``, ``disputes.py`` and
``compare.py`` are statistics, ``sampling.py`` says what to ask next, ``store/`` is the database.
"""
