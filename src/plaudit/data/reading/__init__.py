"""Reading files of every known format: bytes to text, text to rows, rows to records.

Open ``files.py`` first: it opens a file or hub dataset and yields ``Row`` objects (``rows.py``). On the way down:
``decoding.py`` (bytes to text), ``json_rows.py`` and ``csv_parquet.py`` (text to rows). On the way up: ``layouts.py``
(which fields make which kind of record), ``row_parsers.py`` (one function for each layout), ``fields.py`` (one row's
fields, checked), ``transcripts.py`` (`Human:/Assistant:` texts). Faults are collected, so that all come at once.
"""
