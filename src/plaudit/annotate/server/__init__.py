"""The app and its protection. Open ``app.py`` first: it puts routes, guard and middleware together.

``access.py`` decides who may do what, ``security.py`` and ``limits.py`` protect every request, ``connections.py`` the
server's connections; ``batches.py`` runs database jobs; ``site.py`` holds what every route uses; ``serve.py`` listens.
"""
