"""The command line: one thin module a command, parse → one library call → render."""
