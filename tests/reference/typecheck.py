"""The type checker of the import hook."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""Checks arguments and results; an int may stand where a float is asked for, as PEP 484 has it."""
