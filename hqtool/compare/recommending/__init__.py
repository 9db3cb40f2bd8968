"""Choosing a quantizer for each site: the cheapest in traffic that is good enough."""
