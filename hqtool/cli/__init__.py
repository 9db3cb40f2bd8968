"""The command line: one thin module for each command: parse → one library call → render."""
