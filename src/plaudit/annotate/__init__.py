"""The web app on which people give feedback. FastAPI, server-rendered pages, no build step; never loads torch."""
