"""How the processes that train together share one model, and on which device."""
