"""Findings before the first step: the plan, the machine's speed and memory."""
