"""The commands: `main.py` finds them, `<name>_cmd.py` holds one each."""
