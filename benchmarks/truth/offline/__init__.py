"""What one recorded run tells of a recipe before it is trained: candidates for a score."""
