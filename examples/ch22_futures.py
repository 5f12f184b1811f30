"""Chapter 22: futures: results to come, of pages fetched from a web server.

Shows pages fetched one after the other and by threads, as_completed() and wait(), a page that is missing and one that
is late, a Future without a pool, and one that is awaited by an event loop. The server is our own, on this machine.

Run it with:  python examples/ch22_futures.py
"""

import asyncio
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import urlopen

from raddle.concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from raddle.threading import Event, Thread

PAGES = {"/": b"home" * 1000, "/rust": b"rust" * 2000, "/python": b"python" * 3000}
DELAY = 0.1  # seconds that each page takes the server

#: Pages that the server keeps back until we say so.
held = {}


class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path in held:
            held[self.path].wait()
        else:
            time.sleep(DELAY)
        page = PAGES.get(self.path)
        if page is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
Thread(target=server.serve_forever, name="server", daemon=True).start()


def fetch(path):
    with urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=20) as answer:
        return path, len(answer.read())


# One after the other, and all at once: most of the time is waiting, which threads do side by side.

begin = time.perf_counter()
one_by_one = [fetch(path) for path in PAGES]
middle = time.perf_counter()
with ThreadPoolExecutor(max_workers=5) as pool:
    at_once = list(pool.map(fetch, PAGES))
end = time.perf_counter()
for path, size in at_once:
    print(f"{path:8} {size:5} bytes")
print("the same pages:", one_by_one == at_once, "- sooner:", end - middle < middle - begin)


# as_completed() gives futures in the order in which they come to their end. Here, we decide on that order.

held.update((path, Event()) for path in PAGES)
arrivals = []
with ThreadPoolExecutor(max_workers=5) as pool:
    futures = {pool.submit(fetch, path): path for path in PAGES}
    order = ["/python", "/", "/rust"]
    held[order[0]].set()
    for future in as_completed(futures):
        arrivals.append(futures[future])
        if len(arrivals) < len(order):
            held[order[len(arrivals)]].set()
print("asked for:", list(PAGES))
print("arrived:  ", arrivals)


# wait() until the first is there, a result that is late, and a page that does not exist.

held.clear()
held["/slow"] = Event()
PAGES["/slow"] = b"z" * 100
with ThreadPoolExecutor(max_workers=5) as pool:
    quick, slow, missing = (pool.submit(fetch, path) for path in ("/", "/slow", "/nowhere"))
    wait([quick, missing])
    done, not_done = wait([quick, slow], return_when=FIRST_COMPLETED)
    print("done:", quick in done, "- not done:", slow in not_done)
    try:
        slow.result(timeout=0.02)
    except TimeoutError:
        print("late: TimeoutError - done:", slow.done())
    held["/slow"].set()
    print("in the end:", slow.result())
    print("missing:", isinstance(missing.exception(), HTTPError), missing.exception().code)


# A Future is a place for a result. Who makes it may be no pool at all.

letter = Future()
letter.add_done_callback(lambda future: print("callback:", future.result()))
print("state:", letter.done(), letter.running(), letter.cancelled())
letter.set_result("hello")
print("state:", letter.done(), letter.result())


# An event loop can await it, and can send its own work to the pool.


async def main(pool):
    _, size = await asyncio.wrap_future(pool.submit(fetch, "/rust"))
    both = await asyncio.gather(
        *(asyncio.get_running_loop().run_in_executor(pool, fetch, path) for path in ("/", "/"))
    )
    return size, [size for _, size in both]


with ThreadPoolExecutor(max_workers=2) as pool:
    print("awaited:", *asyncio.run(main(pool)))
server.shutdown()
server.server_close()
