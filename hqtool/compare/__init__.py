"""Replaying recorded sites through estimators, and comparing what each costs."""
