"""The API for programs. Open ``api.py`` first (the routes); ``bodies.py`` holds requests and examples, ``reference.py``
the page that explains them."""
