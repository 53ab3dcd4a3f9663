"""MLflow: the observer that writes to it, what it writes, its server, links and views."""
