"""The subcommands, a file each. Each imports what it needs when it is called."""
