"""How plugins are found: the hooks, the registry of components, and the manager that fills it."""
