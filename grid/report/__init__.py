"""Rows to pages."""
