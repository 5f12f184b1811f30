"""The tour's second stop: a stall that explains itself.

A plain program, with nothing of raddle in it. A producer puts ten orders into a queue and one sign that no
more will come. But there are two packers: the one that takes the sign goes home, the other waits for ever. No
circle, so no deadlock: there is just nobody left who could put anything. Under python it hangs without a
word:

    python examples/tour_stall.py               (end it with Ctrl-C)
    raddle run --on-stall exit examples/tour_stall.py
"""

import queue
import threading

CLOSED = None


def take_orders():
    for number in range(10):
        orders.put(number)
    orders.put(CLOSED)


def pack():
    while (number := orders.get()) is not CLOSED:
        packed.append(number)


orders = queue.Queue(maxsize=4)
packed = []
packers = [threading.Thread(target=pack, name=f"packer-{number}") for number in (1, 2)]
shop = threading.Thread(target=take_orders, name="shop")
for thread in (*packers, shop):
    thread.start()
shop.join()
print("the shop is closed", flush=True)
for packer in packers:
    packer.join()
print("all packers have gone home")
