"""`anyseg bench`: figures with their machine, command and spread."""
