"""The command line: parse, call one core function, show what came back. Only this room knows click and rich."""
