"""One process's life: a run built of its config, trained, validated, restored."""
