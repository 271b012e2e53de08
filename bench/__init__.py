"""Measurements of the product against plain references; `python -m bench`."""
