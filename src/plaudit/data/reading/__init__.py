"""Reading files of every known format: bytes to text, text to rows, rows to records.

``opening/`` gives the ``Row`` objects (``rows.py``) of a source. From there on: ``layouts.py`` (which fields make which
kind of record), ``names.py`` (what people call these fields), ``row_parsers.py`` (one function for each layout),
``fields.py`` (one row's fields, checked), ``messages.py`` (the turns of chats), ``structures.py`` (lists and chats
stored as text), ``transcripts.py`` (`Human:/Assistant:` texts), ``exports/`` (rows of other tools). Faults are
collected, so that all come at once.
"""
