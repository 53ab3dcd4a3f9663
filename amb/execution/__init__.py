"""One run, from plan to verdict: planning, the engine, its steps, the store, workers, and what it will cost."""
