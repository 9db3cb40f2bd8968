"""Measurements, each as a ratio to what a user would do instead. Run: ./dev bench [NAME…]."""
