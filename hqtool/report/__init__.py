"""From results to what people and programs read; knows nothing of commands."""
