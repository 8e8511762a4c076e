"""What people see: the command line, the REPL, the screen."""
