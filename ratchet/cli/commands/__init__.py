"""What each command is called and takes. Loads nothing but click, so that help stays quick."""
