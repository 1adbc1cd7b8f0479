"""One file a command: the function is the command, its signature the options, its docstring the help."""
