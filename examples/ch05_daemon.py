"""Chapter 5: daemon threads.

Shows that a program ends when its last non-daemon thread has ended, whatever its daemon threads are doing:
the ticker below would go on for ever. The choice has to be made before start().

Run it with:  python examples/ch05_daemon.py
"""

import time

from raddle.threading import Event, Thread, current_thread, main_thread

ticked = Event()


def tick():
    while True:
        ticked.set()
        time.sleep(0.01)


def finish_the_report():
    ticked.wait()
    main_thread().join()
    print("the report is finished; the ticker is still alive:", ticker.is_alive())


ticker = Thread(target=tick, daemon=True)
ticker.start()
print("daemons:", "ticker", ticker.daemon, "- main", current_thread().daemon)

try:
    ticker.daemon = False
except RuntimeError as error:
    print("too late:", error)

# Not a daemon: the program waits for it, although the main thread does not.
Thread(target=finish_the_report).start()
print("the main thread ends")
