"""Recipes: files that give each site its quantizer, and the named ones as data."""
