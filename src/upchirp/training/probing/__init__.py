"""What is found out before the first step: the plan, the machine's speed and memory."""
