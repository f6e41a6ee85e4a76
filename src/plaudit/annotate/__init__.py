"""The web app in which people give feedback. FastAPI, server-rendered pages, no build step; it never loads torch.

- ``server/``: the app itself, who may do what, limits, batches of database jobs;
- ``pages/``: what people see (templates in ``templates/``, scripts and styles in ``static/``);
- ``rest/``: the API for programs, and its reference page;
- ``import_data.py`` and ``export_data.py``: data in and out, for the pages, the API and the command line alike;
- ``commands.py``: the actions of `plaudit annotate`; ``asking.py``: a few questions from within another program.

Open ``server/app.py`` first: it puts the parts together. The database is ``plaudit.preferences.store``.
"""
