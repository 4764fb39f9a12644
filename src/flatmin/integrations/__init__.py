"""Doors into other people's training loops; each file needs the framework that it is named for."""
