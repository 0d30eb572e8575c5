"""Pictures and settings in, metrics and plots out: everything around the networks that needs no framework."""
