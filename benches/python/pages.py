"""A web server for the rows that fetch pages: in a process of its own, on the loopback interface only.

Every page takes 100 ms, which the server spends waiting, and has as many bytes as a small web page. It ends when its
standard input does, and so with the process that started it, however that ends.

    python -m benches.python.pages     prints its port; ends at the end of its input
"""

import asyncio
import subprocess
import sys
from pathlib import Path

#: Seconds that a page takes, and its bytes.
DELAY, SIZE = 0.1, 40_000

ROOT = Path(__file__).resolve().parents[2]


class PageServer:
    """The server's process. To be used with `with`."""

    #: Bytes of a page.
    size = SIZE

    def __enter__(self) -> "PageServer":
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        #: The port it listens at.
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=20)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(DELAY)
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % SIZE + b"." * SIZE)
    await writer.drain()
    writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve())
