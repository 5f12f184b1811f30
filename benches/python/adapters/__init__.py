"""One module per contender: the types of the workloads under the standard library's names.

An adapter leaves out what its package does not have, and the rows that need it go on without that contender. Where a
package uses other method names, the adapter subclasses and binds its method to the standard name in the class, which
costs nothing at the call.

    Lock RLock Condition Semaphore BoundedSemaphore Event Barrier local Thread Timer
    Queue LifoQueue PriorityQueue SimpleQueue     as in queue
    UnboundedQueue()                              a FIFO without a bound
    Slot()                                        a FIFO for passing one item at a time: Queue(1) where there is one
    Subclass, Overriding                          Queue with an empty body; with _init, _put, _get, _qsize overridden
    put_all(queue, items), get_all(queue, n)      the best the package has for a batch
    scheduler()                                   sched.scheduler
    Future ThreadPoolExecutor wait as_completed   as in concurrent.futures
    ProcessQueue ProcessPipe ProcessPool          Queue, Pipe and Pool of multiprocessing
    ProcessLock ProcessRLock ProcessSemaphore     Lock, RLock, Semaphore
    ProcessCondition                              and Condition of multiprocessing
    get_context                                   as in multiprocessing
    quick_method, server_method                   start methods: the quickest, and the one that forks a server
    ProcessPoolExecutor(workers)                  submit() of concurrent.futures
"""
