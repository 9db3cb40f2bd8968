"""Range estimators: a statistic × a smoothing × a schedule, each a small frozen value."""
