"""Ranges that several ranks of one training share."""
