"""Recovery from time to time: `worker` is a thread, `async_worker` a task, `runs` what both do."""
