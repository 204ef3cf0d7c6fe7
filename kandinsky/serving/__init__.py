"""A server that loses no job: jobs on disk, workers with the weights, HTTP in front; `docs/serving.md` is its contract.

    store       jobs in SQLite, the only thing that outlives the process
    scheduler   gives queued jobs to workers, notes what became of them
    worker      a process with a loaded pipeline
    http        the videos protocol; knows the store and the scheduler, never a pipeline

They send each other the values of `messages`. The server's own process imports no torch and touches no GPU.
"""
