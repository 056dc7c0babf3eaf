"""What a user can ask for; one act a file, imported by the command line when it is called."""
