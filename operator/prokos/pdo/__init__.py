"""L2, the Process Definition Orchestrator: the heartbeat that scans, tags, routes and dispatches every task."""
