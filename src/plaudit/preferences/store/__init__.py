"""The annotation database: SQLAlchemy on SQLite (WAL, synchronous FULL) or PostgreSQL, migrated by Alembic.

Judgements are append-only: a correction, an undo or an adjudication is a new row that names the row it supersedes, so
the state at any earlier revision (a row number) can be read again. What goes in and out are the plain values of
``plaudit.preferences.annotation`` (Item, Annotation); statistics and conversions never see the database.

Open ``engine.py`` first (``Store``: opening, reading, writing), then ``schema.py`` (the tables). ``leases.py`` says
who is shown which item, ``answers.py`` stores what they answer, ``history.py`` reads it back.
"""
