"""From a training state at one step of a plan to the state at a later one."""
