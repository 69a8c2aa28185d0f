"""The command line: ``sit train``, ``sit prove``, ...; see ``sit --help``."""
