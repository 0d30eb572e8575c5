"""Ports that nobody here wrote, proven or refuted: see `python -m examples.ports --help` and docs/ports.md.

None of their code is here. A file each builds a pair: the port from a checkout, its reference from an installed
package.
"""
