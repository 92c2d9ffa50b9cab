"""The line: watch, settle, scan, plan, guard, apply, report. `cycle.py` names the stages in order."""
