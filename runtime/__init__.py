"""What lets a run start anywhere and survive: data, files, processes and the command line."""
