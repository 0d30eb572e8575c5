"""What the commands of `python -m parity` do, once their settings are parsed; `table.py` says which lies where."""
