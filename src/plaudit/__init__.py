"""Plaudit."""
