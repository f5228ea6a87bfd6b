"""Slow, obvious implementations that the tests compare against, and tiny inputs."""

from reference.typecheck import checked as checked
