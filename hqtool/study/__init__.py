"""Studies: one command, trained under every recipe and seed; torch runs in its processes only."""
