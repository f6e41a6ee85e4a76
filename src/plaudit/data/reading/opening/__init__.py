"""From the name of a source to its rows.

Open ``source.py`` first: what a name means, one file, several, a folder or a data set of the hub. ``folders.py``
chooses files of a folder, ``files.py`` opens one, ``decoding.py`` makes text of bytes, ``json_rows.py`` and
``csv_parquet.py`` make rows of text.
"""
